//! Opens a core and runs plants in it.

use std::path::{Path, PathBuf};

use ground::parallel;
use heapcheck::analysis::{self, HeapAnalysis};
use heapcheck::progress::Silent;
use postmortem::session::{Session, SessionOptions};

use crate::ALLOCATORS;
use crate::judge::{self, Outcome};
use crate::plant::{Allocator, Plant, Sort};

/// A healthy core with its program.
#[derive(Clone, Debug)]
pub struct Core {
    /// The release of its allocator.
    pub release: String,
    /// The core.
    pub core: PathBuf,
}

impl Core {
    /// A core of the fixtures: `.../RELEASE/NAME/core`.
    pub fn at(core: &Path) -> Self {
        let release = core
            .parent()
            .and_then(Path::parent)
            .and_then(Path::file_name);
        Self {
            release: release.map_or("?".into(), |name| name.to_string_lossy().into_owned()),
            core: core.to_owned(),
        }
    }

    /// The healthy cores of an allocator's release in a directory of fixtures, by name.
    pub fn healthy(fixtures: &Path, allocator: &dyn Allocator, release: &str) -> Vec<Self> {
        let mut cores: Vec<Self> = std::fs::read_dir(fixtures.join(release))
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                let kind = name.strip_prefix("healthy-");
                let wanted =
                    |kind: &str| allocator.cores().iter().any(|name| kind.starts_with(name));
                kind.is_some_and(wanted)
            })
            .map(|entry| Self::at(&entry.path().join("core")))
            .collect();
        cores.sort_by(|a, b| a.core.cmp(&b.core));
        cores
    }
}

/// One plant and what came of it.
pub struct Trial {
    /// The seed that makes it again.
    pub seed: u64,
    /// What was planted.
    pub sort: Sort,
    /// The plant.
    pub plant: Plant,
    /// What heapcheck said.
    pub outcome: Outcome,
}

/// What came of some plants in one core.
pub struct Trials {
    /// The allocator that was planted in.
    pub allocator: &'static dyn Allocator,
    /// In the order of the seeds.
    pub trials: Vec<Trial>,
}

/// Plants each seed in a core of its own, in the heap of `only` or of the first allocator that the core has and
/// that can be planted in. `chosen` says which seeds: those whose sort it likes. Seeds that the heap has no place for
/// are left out.
///
/// # Errors
/// If the core is not to be read, holds no heap that can be planted in, or is not healthy.
pub fn run(
    core: &Core,
    only: Option<&str>,
    seeds: &[u64],
    chosen: impl Fn(Sort) -> bool,
) -> Result<Trials, String> {
    let say = |what: &str| format!("{}: {what}", core.core.display());
    let files = [core.core.clone(), core.core.with_file_name("binary")];
    let session =
        Session::open(&SessionOptions::of(files)).map_err(|error| say(&error.to_string()))?;
    let target = session.target();
    if let Some(finding) = judge::findings(&session, target, false).first() {
        return Err(say(&format!("is not healthy: {}", finding.message)));
    }
    let analysis =
        analysis::analyse(target, None, &Silent).map_err(|error| say(&error.to_string()))?;
    let survey = |allocator: &&'static dyn Allocator| {
        let wanted = |heap: &&_| is_of(heap, *allocator);
        let heap = analysis.heaps.iter().find(wanted)?;
        Some((*allocator, allocator.survey(target, heap)?))
    };
    let (allocator, planter) = ALLOCATORS
        .iter()
        .filter(|allocator| only.is_none_or(|only| only == allocator.name()))
        .find_map(survey)
        .ok_or_else(|| say("no heap to plant in"))?;
    let mut plants = Vec::new();
    for &seed in seeds {
        let sort = Sort::of_seed(allocator.sorts(), seed);
        let mut rng = fastrand::Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        if chosen(sort)
            && let Some(plant) = planter.plant(sort.index, &mut rng)
        {
            plants.push((seed, sort, plant));
        }
    }
    let trials = parallel::map(&plants, |(seed, sort, plant)| {
        Some(Trial {
            seed: *seed,
            sort: *sort,
            plant: plant.clone(),
            outcome: judge::judge(&session, plant)?,
        })
    });
    Ok(Trials {
        allocator,
        trials: trials.into_iter().flatten().collect(),
    })
}

fn is_of(heap: &HeapAnalysis<'_>, allocator: &dyn Allocator) -> bool {
    heap.identity.name() == allocator.name()
}
