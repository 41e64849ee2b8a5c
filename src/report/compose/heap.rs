//! Allocators and what they hold.

use heaps::allocators::{Detail, SizeClassRow, Tally};

use super::Context;
use super::threads::recorded_frames;
use crate::analysis::HeapAnalysis;
use crate::analysis::census::Service;
use crate::report::schema::{
    self, Allocator, Coverage, Details, HeapMap, HeapPiece, Hex, Located, SizeClass, Statistics,
};

/// The row of one heap.
pub fn allocator(heap: &HeapAnalysis<'_>, service: &Service, context: &Context<'_>) -> Allocator {
    let identity = &heap.identity;
    let statistics = &heap.statistics;
    Allocator {
        name: identity.name().into(),
        variant: identity.variant.map(Into::into),
        version: identity.version.clone(),
        located_by: identity.located_by().name().into(),
        serves: service
            .serves
            .iter()
            .filter_map(|id| Some(context.module(*id)?.name.clone()))
            .collect(),
        idle: service.idle,
        statistics: Statistics {
            in_use: tally(statistics.in_use),
            free: tally(statistics.free),
            lost: tally(statistics.lost),
            mapped_bytes: statistics.mapped_bytes,
        },
        coverage: Coverage {
            in_use: statistics.coverage.in_use,
            free: statistics.coverage.free,
            metadata: statistics.coverage.metadata,
            tails: statistics.coverage.tails,
            unknown: statistics.coverage.unknown,
        },
        details: Details {
            located: identity
                .located
                .iter()
                .map(|part| {
                    let located = Located {
                        address: part.at.into(),
                        by: part.by.name().into(),
                    };
                    (part.part.to_owned(), located)
                })
                .collect(),
            size_classes: statistics.size_classes.iter().map(size_class).collect(),
            more: heap
                .details
                .iter()
                .filter(|(name, _)| !["located", "size_classes"].contains(name))
                .map(|(name, detail)| ((*name).to_owned(), value(detail, context)))
                .collect(),
        },
        map: context.draw_heaps.then(|| map(heap)),
    }
}

/// Pieces of a heap that are drawn.
const MAX_PIECES: usize = 1024;

fn map(heap: &HeapAnalysis<'_>) -> HeapMap {
    let sketch = heap.map.sketch(MAX_PIECES);
    let pieces = sketch.pieces.iter().map(|piece| HeapPiece {
        start: Hex(piece.start),
        in_use: piece.in_use,
        free: piece.free,
        lost: piece.lost,
        metadata: piece.metadata,
        largest_free: piece.largest_free,
    });
    HeapMap {
        piece_bytes: sketch.piece_bytes,
        pieces: pieces.collect(),
    }
}

fn size_class(row: &SizeClassRow) -> SizeClass {
    let range = row.range();
    SizeClass {
        size: row.block_bytes,
        largest: range.largest,
        in_use: row.in_use,
        free: row.free,
        lost: row.lost,
        in_use_bytes: range.in_use,
        free_bytes: range.free,
        lost_bytes: range.lost,
    }
}

fn tally(tally: Tally) -> schema::Tally {
    schema::Tally {
        blocks: tally.blocks,
        bytes: tally.bytes,
    }
}

fn value(detail: &Detail, context: &Context<'_>) -> serde_json::Value {
    match detail {
        Detail::None => serde_json::Value::Null,
        Detail::Number(number) => (*number).into(),
        Detail::Text(text) => text.as_str().into(),
        Detail::Address(address) => address.to_string().into(),
        Detail::Code(stack) => {
            serde_json::to_value(recorded_frames(stack, context)).unwrap_or(serde_json::Value::Null)
        }
        Detail::List(items) => items.iter().map(|item| value(item, context)).collect(),
        Detail::Table(rows) => rows
            .iter()
            .map(|(name, detail)| ((*name).to_owned(), value(detail, context)))
            .collect(),
    }
}
