//! Damage to the page map.
//!
//! An active slab has an element on every page, anything else on its first and last one. Descriptors repeat what
//! elements say, but for the class and the slab flag of free extents and of the last page of a large block; the head
//! flag is set on no inner page.

use super::ground::{ACTIVE, Extent, Ground};
use super::numbers::PAGE;
use super::tree::Element;
use super::unless;
use crate::plant::{Evidence, Plant};

/// Where in its extent a page is.
#[derive(Clone, Copy)]
struct Place {
    extent: Extent,
    first: bool,
    last: bool,
}

impl Ground<'_> {
    /// A word of an element, or a slot of a node.
    pub(super) fn stray_in_page_map(&self, rng: &mut fastrand::Rng) -> Option<Plant> {
        let flip = rng.u8(..3) == 0;
        if rng.u8(..10) == 0 {
            return self.stray_in_node(flip, rng);
        }
        let extent = *self.extents.get(rng.usize(..self.extents.len().max(1)))?;
        let pages = extent.bytes / PAGE;
        let page = match rng.u8(..3) {
            0 => 0,
            1 => pages - 1,
            _ => rng.u64(..pages),
        };
        let at = self.tree.element_at(Ground::page(extent.start()) + page)?;
        let second = self.tree.wide && rng.u8(..4) == 0;
        let other = if self.tree.wide {
            self.word(at + if second { 0 } else { 8 })?
        } else {
            0
        };
        let place = Place {
            extent,
            first: page == 0,
            last: page == pages - 1,
        };
        let stray = self.stray(
            at + if second { 8 } else { 0 },
            "element of the page map",
            flip,
            rng,
        )?;
        let decode = |word| match second {
            true => self.tree.decode(self.numbers.new, other, word),
            false => self.tree.decode(self.numbers.new, word, other),
        };
        let evidence = self.element_changed(place, decode(stray.old), decode(stray.new));
        let mut plant = stray.plant(evidence, self.places(&extent));
        plant.truth.addresses.push((at, at + 16));
        plant.story += &format!(
            ", page {page} of {pages} of {:#x}: {} in state {}, class {}",
            extent.address,
            if extent.slab { "a slab" } else { "no slab" },
            extent.state,
            extent.class
        );
        Some(plant)
    }

    fn element_changed(&self, place: Place, old: Element, new: Element) -> Evidence {
        let Place {
            extent,
            first,
            last,
        } = place;
        let sound = extent.state == ACTIVE && extent.class < self.classes.none();
        let named = new.extent != 0 && self.is_own(new.extent);
        if old.extent != new.extent {
            let impossible = new.extent != 0 && !named;
            return unless(self.busy && !impossible, true);
        }
        if old.extent == 0 {
            return Evidence::Absent;
        }
        let flags = old.slab != new.slab || old.class != new.class;
        let kept = if sound && (extent.slab || first) {
            flags || old.state != new.state
        } else {
            old.state != new.state
        };
        // Its rule is not written down anywhere but for the first and last page.
        let head = old.head != new.head;
        if kept || head && (first || last) {
            unless(self.busy, true)
        } else if head || sound && last && old.slab != new.slab {
            Evidence::Open
        } else {
            Evidence::Absent
        }
    }

    /// A slot of the root or of a node.
    fn stray_in_node(&self, flip: bool, rng: &mut fastrand::Rng) -> Option<Plant> {
        let at = if rng.bool() {
            *self
                .tree
                .links
                .get(rng.usize(..self.tree.links.len().max(1)))?
        } else {
            self.tree.root + rng.u64(..self.tree.slots) * 8
        };
        let stray = self.stray(at, "slot of a node of the page map", flip, rng)?;
        Some(stray.plant(Evidence::Present, Vec::new()))
    }
}
