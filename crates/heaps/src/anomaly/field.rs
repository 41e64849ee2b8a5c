//! Which word of an allocator something stands in. The checks have their names.

/// A word of an allocator's. The names are those of its sources, where it has one there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    // Of any allocator.
    /// A word of a free block, which somebody read.
    WordOfFreeBlock,
    /// A word of a block in use, which somebody read or wrote.
    WordOfBlockInUse,
    /// A call that the allocator refused: no word at all.
    RefusedCall,
    /// Two extents that claim the same memory.
    OverlappingExtents,

    // gperftools'.
    /// `CentralFreeList.counter_`.
    CentralFreeListCounter,
    /// `CentralFreeList.lock_`.
    CentralFreeListLock,
    /// `CentralFreeList.num_spans_`.
    CentralFreeListNumSpans,
    /// `CentralFreeList.size_class_`.
    CentralFreeListSizeClass,
    /// `CentralFreeList.used_slots_`.
    CentralFreeListUsedSlots,
    /// `Span.sizeclass` and location of a span on a central list.
    ClassOfListedSpan,
    /// `PageHeap.stats_.free_bytes`.
    FreeBytes,
    /// `FreeList.lowater_`.
    FreeListLowater,
    /// `FreeList.max_length_`.
    FreeListMaxLength,
    /// `FreeList.size_`.
    FreeListSize,
    /// Span on a list of free spans.
    FreeSpanOnList,
    /// `Span.length` of a span on a central list.
    LengthOfListedSpan,
    /// `Span.objects` of a span on the list of those without free objects.
    ObjectsOfEmptySpan,
    /// `Span.objects` of a span on the list of those with free objects.
    ObjectsOfNonemptySpan,
    /// `Span.objects` of a sampled span.
    ObjectsOfSampledSpan,
    /// Page map entry of a page of the span.
    PageMapEntry,
    /// `SizeMap.class_array_`.
    SizeMapClassArray,
    /// `Span.length`.
    SpanLength,
    /// Link of a list of spans.
    SpanListLink,
    /// `Span.location`.
    SpanLocation,
    /// Span of small objects.
    SpanOfSmallObjects,
    /// `Span.refcount`.
    SpanRefcount,
    /// `Span.sizeclass`.
    SpanSizeclass,
    /// `Span.start`.
    SpanStart,
    /// `Span.start` of a span on a central list.
    StartOfListedSpan,
    /// `Static::sampled_objects_`.
    StaticSampledObjects,
    /// `PageHeap.stats_.system_bytes`.
    SystemBytes,
    /// Link of the list of thread caches.
    ThreadCacheListLink,
    /// `ThreadCache.size_`.
    ThreadCacheSize,
    /// `ThreadCache::thread_heap_count_`.
    ThreadCacheThreadHeapCount,
    /// Tail of a transfer cache slot.
    TransferSlotTail,
    /// `PageHeap.stats_.unmapped_bytes`.
    UnmappedBytes,

    // glibc's.
    /// Link back (bk).
    Bk,
    /// Link to the next larger size (bk_nextsize).
    BkNextsize,
    /// Link back (bk) of the bin.
    BkOfBin,
    /// Number of bytes before the chunk in its mapping.
    BytesBeforeMappedChunk,
    /// Count of the list beside it.
    CountBesideList,
    /// Next link (fd) of a chunk that this bin leads to.
    FdInBin,
    /// Link to the next smaller size (fd_nextsize).
    FdNextsize,
    /// Size and flags of the chunk.
    Header,
    /// Size and flags of the chunk with a mapping of its own.
    HeaderOfMappedChunk,
    /// Size and flags of a chunk that was freed and merged with memory of the block before it, which is in use.
    HeaderOfMergedChunk,
    /// Size and flags of the top chunk.
    HeaderOfTop,
    /// `heap_info.ar_ptr`.
    HeapInfoArPtr,
    /// `heap_info.size`.
    HeapInfoSize,
    /// `malloc_state.attached_threads`.
    MallocStateAttachedThreads,
    /// `malloc_state.binmap`.
    MallocStateBinmap,
    /// `malloc_state.flags`.
    MallocStateFlags,
    /// `malloc_state.max_system_mem`.
    MallocStateMaxSystemMem,
    /// `malloc_state.next`.
    MallocStateNext,
    /// `malloc_state.next_free`.
    MallocStateNextFree,
    /// `malloc_state.system_mem`.
    MallocStateSystemMem,
    /// `malloc_state.top`.
    MallocStateTop,
    /// `mp_.hp_pagesize`.
    MpHpPagesize,
    /// `mp_.max_n_mmaps`.
    MpMaxNMmaps,
    /// `mp_.n_mmaps`.
    MpNMmaps,
    /// `mp_.tcache_bins`.
    MpTcacheBins,
    /// `mp_.tcache_count`.
    MpTcacheCount,
    /// `mp_.tcache_max_bytes`.
    MpTcacheMaxBytes,
    /// `PREV_INUSE` behind a chunk that is in a bin.
    PrevInUseBehindBinned,
    /// `PREV_INUSE` behind a chunk that is in no bin.
    PrevInUseBehindUnbinned,
    /// Size behind the block (prev_size of the next chunk).
    PrevSize,
    /// Tcache key.
    TcacheKey,
    /// `thread_arena`.
    ThreadArena,

    // jemalloc's.
    /// `arena_t.base`.
    ArenaBase,
    /// `arena_t.ind`.
    ArenaInd,
    /// `arena_t.nactive`.
    ArenaNactive,
    /// `bin_stats_t.nmalloc` - bin_stats_t.ndalloc.
    BinAllocations,
    /// `bin_t.slabcur`.
    BinSlabcur,
    /// `bin_stats_t.curregs`.
    BinStatsCurregs,
    /// `bin_stats_t.curslabs`.
    BinStatsCurslabs,
    /// `bin_stats_t.nonfull_slabs`.
    BinStatsNonfullSlabs,
    /// Place of a cache_bin_t's entries.
    CacheBinEntries,
    /// Marks of a cache_bin_t.
    CacheBinMarks,
    /// `ecache_t.state`.
    EcacheState,
    /// `edata_t` bitmap.
    EdataBitmap,
    /// `edata_t.e_addr`.
    EdataEAddr,
    /// `edata_t.e_bits`.
    EdataEBits,
    /// `edata_t.e_size`.
    EdataESize,
    /// `edata_t.nfree`.
    EdataNfree,
    /// `eset_t.npages`.
    EsetNpages,
    /// `extent_t` bitmap.
    ExtentBitmap,
    /// `extent_t.e_addr`.
    ExtentEAddr,
    /// `extent_t.e_bits`.
    ExtentEBits,
    /// `extent_t.e_size`.
    ExtentESize,
    /// `extent_t.nfree`.
    ExtentNfree,
    /// `extents_t.npages`.
    ExtentsNpages,
    /// `extents_t.state`.
    ExtentsState,
    /// `pa_shard_t.emap`.
    PaShardEmap,
    /// `pa_shard_t.nactive`.
    PaShardNactive,
    /// Heap of a page cache.
    PageCacheHeap,
    /// Link of a page cache's heap.
    PageCacheHeapLink,
    /// Heaps of a page cache.
    PageCacheHeaps,
    /// List of a page cache.
    PageCacheList,
    /// Link of a page cache's list.
    PageCacheListLink,
    /// Slot of the page map that the pointer's page needs.
    PageMapSlotOfPointer,
    /// `rtree_leaf_elm_t`.
    RtreeLeaf,
    /// `rtree_leaf_elm_t` of the extent's first page.
    RtreeLeafOfFirstPage,
    /// `rtree_leaf_elm_t` of the pointer's page.
    RtreeLeafOfPointer,
    /// `rtree_node_elm_t`.
    RtreeNode,
    /// Link of bin_t.slabs_nonfull.
    SlabsNonfullLink,
    /// `tcache_slow_t.arena`.
    TcacheSlowArena,
    /// `tcache_t.tcache_slow`.
    TcacheTcacheSlow,
    /// A word of arenas.
    WordOfArenas,
}
