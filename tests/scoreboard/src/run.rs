//! Opens a core and runs plants in it.

use std::path::{Path, PathBuf};

use heapcheck::analysis;
use heapcheck::modules::SearchPaths;
use heapcheck::progress::Silent;
use heapcheck::session::{Session, SessionOptions};
use heaps::parallel;
use heaps::target::{LocateLimit, LocatedBy};

use crate::ground::Ground;
use crate::judge::{self, Outcome};
use crate::plant::{Plant, Planter, Sort};
use crate::tcmalloc::Tcmalloc;

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

    /// The healthy cores of a release in a directory of fixtures, by name.
    pub fn healthy(fixtures: &Path, release: &str) -> Vec<Self> {
        // Cores of the state that a handler or a fork leaves are other tests' business.
        const NAMES: [&str; 5] = ["stats", "large", "exited-threads", "threads-", "released"];
        let mut cores: Vec<Self> = std::fs::read_dir(fixtures.join(release))
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                let kind = name.strip_prefix("healthy-");
                kind.is_some_and(|kind| NAMES.iter().any(|name| kind.starts_with(name)))
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

/// Plants each seed in a core of its own. Seeds that the heap has no place for are left out.
///
/// # Errors
/// If the core is not to be read, holds no heap that can be planted in, or is not healthy.
pub fn run(core: &Core, seeds: &[u64]) -> Result<Vec<Trial>, String> {
    let say = |what: &str| format!("{}: {what}", core.core.display());
    let session = Session::open(&SessionOptions {
        files: vec![core.core.clone(), core.core.with_file_name("binary")],
        search: SearchPaths::default(),
        limit: LocateLimit(LocatedBy::DebugInfo),
        jobs: None,
        open: Default::default(),
    })
    .map_err(|error| say(&error.to_string()))?;
    let target = session.target();
    if let Some(finding) = judge::findings(target, false).first() {
        return Err(say(&format!("is not healthy: {}", finding.message)));
    }
    let analysis =
        analysis::analyse(target, None, &Silent).map_err(|error| say(&error.to_string()))?;
    let heap = analysis.heaps.first().ok_or_else(|| say("no heap"))?;
    let ground = Ground::survey(target, heap);
    let planter = Tcmalloc::new(&ground).ok_or_else(|| say("no heap to plant in"))?;
    let mut plants = Vec::new();
    for &seed in seeds {
        let sort = Sort::of_seed(seed);
        let mut rng = fastrand::Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        if let Some(plant) = planter.plant(sort, &mut rng) {
            plants.push((seed, sort, plant));
        }
    }
    let trials = parallel::map(&plants, |(seed, sort, plant)| {
        Some(Trial {
            seed: *seed,
            sort: *sort,
            plant: plant.clone(),
            outcome: judge::judge(target, plant)?,
        })
    });
    Ok(trials.into_iter().flatten().collect())
}
