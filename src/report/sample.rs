//! A report made by hand, for the tests of the views.

use super::schema::*;

/// An overrun with everything that a finding can have.
pub fn overrun() -> Report {
    let frame =
        |frame, module: &str, function: Option<&str>, line: Option<u32>, trust: &str| Frame {
            frame,
            module: Some(module.into()),
            offset: Hex(0x7f00_1234),
            resume_address: Hex(0x7f00_1234),
            module_offset: Some(Hex(0x1234)),
            function: function.map(Into::into),
            function_offset: function.map(|_| Hex(0x14)),
            file: line.map(|_| "src/linked_list.h".into()),
            line,
            trust: trust.into(),
            inlines: Vec::new(),
        };
    Report {
        schema_version: SCHEMA_VERSION,
        core: Core {
            path: "core.7958".into(),
            size: 18_915_328,
            ..Core::default()
        },
        pid: Some(7958),
        classifiers: vec!["heap-overrun".into(), "segmentation-violation".into()],
        process: Process {
            executable: Some("chat-server".into()),
            name: Some("chat-server".into()),
            arguments: Some("./chat-server --port 80".into()),
            uid: Some(0),
        },
        crash_info: CrashInfo {
            signal: Some("SIGSEGV".into()),
            code: Some("SEGV_MAPERR".into()),
            address: Some(Hex(0x4141)),
            crashing_thread: Some(0),
            crashing_frame: Some(0),
            instruction: Some("mov [rax], rdx".into()),
            instruction_details: Some(Instruction {
                address: Hex(0x7f00_1234),
                bytes: Bytes(vec![0x48, 0x89, 0x10]),
                text: "mov [rax], rdx".into(),
                memory: vec![MemoryOperand {
                    access: "write".into(),
                    address: Some(Hex(0x4141)),
                    size: 8,
                    expression: "rax".into(),
                    registers: [("rax".to_owned(), Some(Hex(0x4141)))].into(),
                }],
                explains_fault: true,
            }),
            call: Some(AllocatorCall {
                function: "free".into(),
                frame: 2,
                pointer: Some(Hex(0x1088)),
                source: Some("call-site".into()),
                certain: Some(true),
                loaded_from: Some(Hex(0x7ffc_0010)),
            }),
            values: vec![RegisterMeaning {
                register: "rdi".into(),
                value: Hex(0x60_2010),
                what: "free-block".into(),
                meaning: "the free block 0x602010 of 40 bytes".into(),
                block: None,
            }],
            ..CrashInfo::default()
        },
        crashing_thread: Some(CrashingThread {
            threads_index: 0,
            registers: [("rip".to_owned(), Hex(0x7f00_1234))].into(),
            ..CrashingThread::default()
        }),
        system_info: SystemInfo {
            os: "Linux".into(),
            cpu_arch: "amd64".into(),
        },
        threads: vec![
            Thread {
                thread_id: 7958,
                thread_name: Some("evil\x1b[2Jname".into()),
                frame_count: 3,
                state: Some("running".into()),
                omitted_frames: None,
                stack_end: None,
                frames: vec![
                    frame(
                        0,
                        "libtcmalloc.so.4.3.0",
                        Some("tcmalloc::SLL_SetNext(void*, void*)"),
                        Some(49),
                        "context",
                    ),
                    frame(1, "libtcmalloc.so.4.3.0", None, None, "cfi"),
                    frame(2, "libc-2.23.so", Some("__libc_start_main"), None, "scan"),
                ],
            },
            Thread {
                thread_id: 7959,
                thread_name: None,
                frame_count: 1,
                state: Some("running".into()),
                omitted_frames: None,
                stack_end: None,
                frames: vec![Frame {
                    offset: Hex(0xdead),
                    trust: "context".into(),
                    ..Frame::default()
                }],
            },
        ],
        allocators: vec![Allocator {
            name: "tcmalloc".into(),
            variant: Some("gperftools".into()),
            version: Some("2.10".into()),
            located_by: "structure".into(),
            serves: vec!["chat-server".into(), "libstdc++.so.6.0.30".into()],
            idle: Some(false),
            statistics: Statistics {
                in_use: Tally {
                    blocks: 12_345,
                    bytes: 1_234_567,
                },
                free: Tally {
                    blocks: 17,
                    bytes: 816,
                },
                lost: Tally {
                    blocks: 2,
                    bytes: 96,
                },
                mapped_bytes: 2 << 20,
            },
            coverage: Coverage {
                in_use: 1_234_567,
                free: 912,
                metadata: 861_673,
                tails: 0,
                unknown: 0,
            },
            details: Details {
                size_classes: vec![
                    SizeClass {
                        size: 48,
                        in_use: 6,
                        free: 17,
                        lost: 2,
                        largest: 48,
                        in_use_bytes: 6 * 48,
                        free_bytes: 17 * 48,
                        lost_bytes: 2 * 48,
                    },
                    SizeClass {
                        size: 1024,
                        in_use: 1200,
                        free: 0,
                        lost: 0,
                        largest: 2047,
                        in_use_bytes: 1200 * 1024,
                        free_bytes: 0,
                        lost_bytes: 0,
                    },
                ],
                ..Details::default()
            },
            map: Some(HeapMap {
                piece_bytes: 4096,
                pieces: vec![
                    HeapPiece {
                        start: Hex(0x1000),
                        in_use: 3000,
                        free: 800,
                        lost: 96,
                        metadata: 200,
                        largest_free: 48,
                    },
                    HeapPiece {
                        start: Hex(0x9000),
                        free: 4096,
                        largest_free: 4096,
                        ..HeapPiece::default()
                    },
                ],
            }),
        }],
        findings: vec![finding()],
        summary: Summary {
            critical: 1,
            ..Summary::default()
        },
        limits: vec![Limit {
            what: "thread caches of 2 threads".into(),
            why: "their pages were not dumped".into(),
            incomplete: true,
        }],
        diagnostics: vec![Diagnostic {
            level: Level::Warning,
            message: "wrong-binary is not the program that died (its build ID differs); not used"
                .into(),
        }],
        ..Report::default()
    }
}

fn finding() -> Finding {
    Finding {
        id: 1,
        kind: "heap-overrun".into(),
        cwe: 122,
        severity: Severity::Critical,
        confidence: Confidence::Certain,
        explains_crash: "unknown".into(),
        causes: Vec::new(),
        allocator: Some("tcmalloc".into()),
        address: Some(Hex(0x1050)),
        block: Some(Block {
            address: Hex(0x1050),
            size: 48,
            state: "free".into(),
            offset: 0,
            type_of: None,
            bytes: None,
        }),
        message: "the link in a free block was overwritten from the block before it".into(),
        evidence: vec![Evidence {
            address: Hex(0x1050),
            size: 8,
            what: "next link".into(),
            expected: "0x1080, the block after it".into(),
            found: "0x6920656761747320, the text \" stage i\"".into(),
            dump: Some(Dump {
                address: Hex(0x1040),
                bytes: Bytes(b"this was the last stage i\0\0\0\0\0\0\0".to_vec()),
            }),
        }],
        locations: vec![Location {
            holder: "thread-cache".into(),
            thread_id: Some(7958),
            size_class: 4,
            size_class_bytes: 48,
            position: 0,
            list_address: Hex(0x9000),
        }],
        collateral: Collateral { lost_blocks: 2 },
        culprit: Some(Culprit {
            address: Hex(0x1020),
            size: 48,
            state: "in-use".into(),
            type_of: None,
            contents: None,
            bytes: Some(Bytes(b"AAAA".to_vec())),
            allocated_at: None,
            freed_at: None,
            referenced_by: Vec::new(),
            referenced_by_count: 0,
        }),
        overwriter: Some(Overwriter {
            class: "ascii".into(),
            text: Some(" stage i".into()),
        }),
        stacks: Some(Stacks {
            allocation: vec![Frame {
                module: Some("chat-server".into()),
                offset: Hex(0x40_1234),
                function: Some("log_in".into()),
                trust: "prewalked".into(),
                ..Frame::default()
            }],
            deallocation: Vec::new(),
        }),
        allocated_at: None,
        freed_at: None,
        freed_again_at: None,
        referenced_by: vec![
            Reference {
                kind: "stack".into(),
                strength: "strong".into(),
                address: Some(Hex(0x7ffd_0010)),
                thread_id: Some(7958),
                frame: Some(4),
                function: Some("worker_loop".into()),
                stack_offset: Some(0x18),
                ..Reference::default()
            },
            Reference {
                kind: "global".into(),
                strength: "strong".into(),
                address: Some(Hex(0x60_4040)),
                symbol: Some("sessions".into()),
                symbol_offset: Some(0x10),
                module: Some("chat-server".into()),
                module_offset: Some(Hex(0x4040)),
                ..Reference::default()
            },
        ],
        referenced_by_count: 4,
        repairs: Vec::new(),
        next_steps: vec![
            "find who writes text into 48-byte blocks".into(),
            "run the program under a memory checker with a breakpoint on the write".into(),
        ],
        fingerprint: Fingerprint {
            v2: "d7a8fbb307d78094".into(),
            v2_text: "chat-server | heap-overrun | tcmalloc | log_in".into(),
            v1: "9f86d081884c7d65".into(),
        },
    }
}
