//! What a core cannot tell, in words: its limits and the files that were refused.

use ground::target::{Address, Fault, MemoryExt, Module, Region, RegionKind, TargetMemory, Thread};

use super::Limit;
use crate::corefile::{AddressSpace, CoreFile};
use crate::modules::ModuleSet;

/// Most modules that are named in one sentence.
const MAX_NAMES: usize = 5;

/// One warning for each file that was there and is not used.
pub(super) fn refused(modules: &ModuleSet) -> Vec<String> {
    let sentence = |refused: &crate::modules::Refused| {
        let path = refused.path.display();
        let module = modules.module(refused.module);
        let name = module.map_or("a module", |module| &module.name);
        let ids = match (&refused.build_id, module.and_then(|m| m.build_id.as_ref())) {
            (Some(found), Some(expected)) => {
                format!(" ({} instead of {})", hex(found), hex(expected))
            }
            _ => String::new(),
        };
        format!("{path} is not used for {name}: {}{ids}", refused.why)
    };
    modules.refused().iter().map(sentence).collect()
}

/// What is not in the core or not known for sure.
pub(super) fn of_core(core: &CoreFile, memory: &AddressSpace, modules: &ModuleSet) -> Vec<Limit> {
    let mut limits = Vec::new();
    limits.extend(cut_off(core, memory));
    limits.extend(not_dumped(core, memory));
    limits.extend(of_threads(core, memory));
    if core.notes_are_damaged() {
        limits.push(Limit {
            what: "threads, mapped files or the signal, as far as their notes are damaged"
                .to_owned(),
            why: "notes of the core are cut off or contradict each other".to_owned(),
            incomplete: true,
        });
    }
    if core.threads().is_empty() {
        limits.push(Limit {
            what: "the threads: their registers, stacks and thread-local memory".to_owned(),
            why: "the core has no note about any thread".to_owned(),
            incomplete: false,
        });
    }
    limits.extend(unverified(modules));
    limits.extend(without_file(modules));
    limits
}

fn cut_off(core: &CoreFile, memory: &AddressSpace) -> Option<Limit> {
    if !core.truncated() {
        return None;
    }
    let lost = |region: &Region| region.dumped_bytes.saturating_sub(region.present_bytes);
    let memory_bytes: u64 = memory.regions().iter().map(lost).sum();
    Some(Limit {
        what: format!("{memory_bytes} bytes of memory"),
        why: format!(
            "the core is cut off after {} of {} bytes; raise what cut it: the limit of core files (ulimit -c), \
             ProcessSizeMax= and ExternalSizeMax= of systemd-coredump, or the space on the disk",
            core.file_bytes(),
            core.expected_bytes()
        ),
        incomplete: true,
    })
}

/// Writable anonymous memory that the dump left out.
///
/// The kernel dumps an anonymous mapping whole once it was touched. One that is left out whole while others are there was
/// therefore never touched, or excluded by name (`MADV_DONTDUMP`, the filter): the core does not tell which. An allocator's
/// walk that needs such a page meets `NotDumped` and says so.
fn not_dumped(core: &CoreFile, memory: &AddressSpace) -> Vec<Limit> {
    let is_named = |region: &Region| {
        let found = core
            .files()
            .binary_search_by_key(&region.range.start, |file| file.start);
        found.is_ok()
    };
    let mut untouched = (0u64, 0u64);
    let mut shared = (0u64, 0u64);
    let mut missing = (0u64, 0u64);
    let heap_like = memory.regions().iter().filter(|region| {
        region.kind == RegionKind::Anonymous
            && region.writable
            && region.dumped_bytes < region.bytes()
    });
    for region in heap_like {
        let (count, bytes) = if is_named(region) {
            &mut shared
        } else if region.dumped_bytes == 0 && memory.writes_are_dumped() {
            &mut untouched
        } else {
            &mut missing
        };
        *count = count.saturating_add(1u64);
        *bytes = bytes.saturating_add(region.bytes().saturating_sub(region.dumped_bytes));
    }
    let limit = |(count, bytes): (u64, u64), what: &str, why: &str, incomplete| {
        (count > 0).then(|| Limit {
            what: format!("{bytes} bytes of {what} in {count} mappings"),
            why: why.to_owned(),
            incomplete,
        })
    };
    let limits = [
        limit(
            missing,
            "writable anonymous memory",
            "they were not dumped; set bit 0 of /proc/PID/coredump_filter",
            true,
        ),
        limit(
            shared,
            "shared memory and huge pages",
            "they were not dumped; set bits 1, 3, 5 and 6 of /proc/PID/coredump_filter",
            true,
        ),
        limit(
            untouched,
            "writable anonymous memory",
            "they were not dumped: never touched, or excluded with MADV_DONTDUMP",
            false,
        ),
    ];
    limits.into_iter().flatten().collect()
}

/// Threads whose stack or thread-local memory was left out: both were in use, whatever the rest of the mapping was.
fn of_threads(core: &CoreFile, memory: &AddressSpace) -> Vec<Limit> {
    // A thread whose stack has ended stands on the page without access below it, which never holds anything.
    let is_guard = |at: Address| {
        let region = memory.region_at(at);
        region.is_some_and(|region| !region.readable && !region.writable)
    };
    let is_absent = |at: Option<Address>| {
        at.is_some_and(|at| {
            let window = memory.window(at);
            matches!(window, Err(Fault::NotDumped(_) | Fault::Truncated(_))) && !is_guard(at)
        })
    };
    let count = |place: fn(&Thread) -> Option<Address>| {
        let threads = core.threads().iter();
        threads.filter(|thread| is_absent(place(thread))).count()
    };
    let limit = |(count, what): (usize, &str)| {
        (count > 0).then(|| Limit {
            what: format!("{what} of {count} threads"),
            why: "the memory is not in the core".to_owned(),
            incomplete: true,
        })
    };
    [
        (count(|thread| Some(thread.sp)), "the stacks"),
        (
            count(|thread| thread.thread_pointer),
            "the thread-local memory, caches of the allocator included,",
        ),
    ]
    .into_iter()
    .filter_map(limit)
    .collect()
}

fn unverified(modules: &ModuleSet) -> Vec<Limit> {
    let limit = |(module, file): (&Module, &crate::modules::ModuleFile)| Limit {
        what: format!("whether {} is {}", file.path.display(), module.name),
        why: "the core holds no build ID for this module; the file was used unverified".to_owned(),
        incomplete: false,
    };
    modules.unverified().map(limit).collect()
}

fn without_file(modules: &ModuleSet) -> Vec<Limit> {
    let missing = |has_id: bool| -> Vec<&str> {
        modules
            .modules()
            .iter()
            .filter(|module| {
                modules.file(module.id).is_none() && module.build_id.is_some() == has_id
            })
            .map(|module| module.name.as_str())
            .collect()
    };
    let limit = |names: Vec<&str>, why: &str| {
        let named = names.get(..MAX_NAMES).unwrap_or(&names).join(", ");
        let more = match names.len().saturating_sub(MAX_NAMES) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        (!names.is_empty()).then(|| Limit {
            what: format!("code, symbols and types of {named}{more}"),
            why: why.to_owned(),
            incomplete: false,
        })
    };
    let limits = [
        limit(
            missing(true),
            "no file with their build ID was found; name the place with --sysroot",
        ),
        limit(
            missing(false),
            "the core holds no build ID of theirs, so no file is used unless it is named with --sysroot",
        ),
    ];
    limits.into_iter().flatten().collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corefile::testing::{R, RW, TestCore, parse};
    use crate::modules::SearchPaths;

    fn limits(bytes: &[u8]) -> Vec<(String, bool)> {
        let core = parse(bytes).unwrap();
        let memory = AddressSpace::new(&core);
        let modules = ModuleSet::discover(&core, &memory, &SearchPaths::default());
        let limits = of_core(&core, &memory, &modules).into_iter();
        limits.map(|limit| (limit.what, limit.incomplete)).collect()
    }

    fn sample() -> TestCore {
        TestCore::default()
            .thread(1, 11, [0; 27])
            .load(0x1000, RW, &[1; 0x2000])
            .part(0x8000, 0x1000, R, &[])
    }

    #[test]
    fn a_whole_core_has_no_limits() {
        assert_eq!(limits(&sample().bytes()), []);
    }

    #[test]
    fn a_cut_core_is_incomplete() {
        let bytes = sample().bytes();
        let expected = [("256 bytes of memory".to_owned(), true)];
        assert_eq!(limits(&bytes[..bytes.len() - 256]), expected);
    }

    #[test]
    fn memory_left_out_whole_was_most_likely_never_touched() {
        let what = "4096 bytes of writable anonymous memory in 1 mappings".to_owned();
        let untouched = sample().part(0x5000, 0x1000, RW, &[]);
        assert_eq!(limits(&untouched.bytes()), [(what.clone(), false)]);
        let partly = sample().part(0x5000, 0x2000, RW, &[1; 0x1000]);
        assert_eq!(limits(&partly.bytes()), [(what, true)]);
    }

    #[test]
    fn shared_memory_that_the_filter_left_out_is_missing() {
        let shared = sample().part(0x5000, 0x1000, RW, &[]);
        let shared = shared.files(&[(0x5000, 0x6000, 0, "/dev/zero (deleted)")]);
        let what = "4096 bytes of shared memory and huge pages in 1 mappings".to_owned();
        assert_eq!(limits(&shared.bytes()), [(what, true)]);
    }

    #[test]
    fn a_core_without_threads_says_so() {
        let core = TestCore::default().load(0x1000, RW, &[1; 0x1000]);
        assert_eq!(limits(&core.bytes()).len(), 1);
    }
}
