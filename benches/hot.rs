//! The hot loops: opening a core, walking a heap of each allocator, checking it, marking what is reached, unwinding, and looking sources up.
//! `cargo bench -p benches`; big heaps are measured by `testdata/measure.sh`.

#![allow(missing_docs)] // of what criterion_group! makes

use std::hint::black_box;

use benches::Case;
use criterion::{Criterion, criterion_group, criterion_main};
use ground::target::Address;
use heapcheck::graph::roots;
use heapcheck::progress::Silent;
use heapcheck::{analysis, checks};
use heaps::graph::mark::{self, Bounds};
use postmortem::session::Session;

const HEAPS: [(&str, &str); 3] = [
    ("tcmalloc", "2.10/healthy-threads-01"),
    ("ptmalloc", "glibc-2.36/healthy-handler-01"),
    ("jemalloc", "jemalloc-5.3.0/healthy-threads-01"),
];
/// Addresses looked up in the program.
const LOOKUPS: u64 = 500;

fn opened(name: &str) -> (Case, Session) {
    let case = Case::new(name).expect("tests/cores has it");
    let session = case.open().expect("it is a core");
    (case, session)
}

fn heaps(criterion: &mut Criterion) {
    for (allocator, name) in HEAPS {
        let (case, session) = opened(name);
        criterion.bench_function(&format!("open/{allocator}"), |bencher| {
            bencher.iter(|| black_box(case.open().is_ok()));
        });
        criterion.bench_function(&format!("walk/{allocator}"), |bencher| {
            bencher.iter(|| black_box(analysis::analyse(session.target(), None, &Silent).is_ok()));
        });
        let walked = analysis::analyse(session.target(), None, &Silent).expect("it has a heap");
        criterion.bench_function(&format!("check/{allocator}"), |bencher| {
            bencher.iter(|| black_box(checks::run(session.target(), &walked, None)));
        });
        let ground = roots::ground(&session, &walked);
        for (way, stored) in [("stored", u64::MAX), ("scanned", 0)] {
            let bounds = Bounds {
                stored,
                ..Bounds::default()
            };
            criterion.bench_function(&format!("mark/{way}/{allocator}"), |bencher| {
                bencher.iter(|| black_box(mark::mark_within(&ground.universe, bounds)));
            });
        }
    }
}

fn stacks(criterion: &mut Criterion) {
    let (case, _) = opened("stacks/deep-O2-lambda");
    criterion.bench_function("unwind", |bencher| {
        bencher.iter(|| {
            let session = case.open().expect("it is a core");
            black_box(session.threads().frames(0).len())
        });
    });
    criterion.bench_function("sources", |bencher| {
        bencher.iter(|| {
            let session = case.open().expect("it is a core");
            let modules = session.modules();
            let program = modules.executable().expect("it has a program");
            let (start, end) = (program.range.start.get(), program.range.end.get());
            for part in 0..LOOKUPS {
                let at = Address::new(start + (end - start) / LOOKUPS * part);
                black_box(session.debug_info().source_at(program.id, at));
            }
        });
    });
}

criterion_group!(hot, heaps, stacks);
criterion_main!(hot);
