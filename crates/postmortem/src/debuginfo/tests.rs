//! Layouts and variables of a program that is compiled here, in every dialect of debug information that gcc writes; and the
//! same with flipped bytes.

use std::process::Command;

use ground::target::Field;

use super::*;
use crate::corefile::Mapping;

/// Offsets and sizes below are those of the ABI; `main` is never run.
const PROGRAM: &str = r#"
#include <stdint.h>
typedef unsigned long Length;
struct Base { int base_a; char base_b; };
namespace outer {
  template <int N> struct Map { struct Leaf { void* slots[4]; }; Leaf* root[1 << N]; void* (*allocate)(unsigned long); };
  struct Span {
    uintptr_t start; Length length; Span* next; const Span* prev;
    union { void* objects; char space[8]; };
    unsigned int refcount : 16; unsigned int sizeclass : 8; unsigned int location : 2; unsigned int sample : 1;
  };
  class Derived : public Base {
   public:
    struct Inner;
    typedef Map<3> Tree;
    Tree tree_;
    double matrix_[3][5];
    struct { short x; struct { long y; }; } unnamed_;
    volatile Span span_;
    enum Kind { small, large } kind_;
    static Derived instance_;
    static int table_[7];
    Inner* inner_;
    char flexible_[];
  };
  struct Derived::Inner { long deep; };
  Derived Derived::instance_;
  int Derived::table_[7];
  namespace { struct Hidden { Span spans[2]; }; Hidden hidden_; }
  static Span* heads_[4];
}
typedef struct { int in_typedef; } named_by_typedef;
named_by_typedef instance;
struct opaque; opaque* opaque_pointer;
int main() {
  static int inside_main = 3;
  return outer::Derived::instance_.span_.refcount + outer::Derived::table_[1] + (int)outer::hidden_.spans[1].length
    + instance.in_typedef + (outer::heads_[2] != 0) + inside_main + (opaque_pointer != 0);
}
outer::Derived::Inner inner_instance;
outer::Map<3>::Leaf leaf_instance;
"#;

/// The program, compiled with these options.
fn compile(options: &[&str]) -> FileBytes {
    compile_text(PROGRAM, options)
}

fn compile_text(text: &str, options: &[&str]) -> FileBytes {
    let name = format!("{}{}", options.concat(), text.len());
    let dir = std::env::temp_dir().join(format!("heapcheck-types-{}{name}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let source = dir.join("program.cc");
    let program = dir.join("program");
    std::fs::write(&source, text).unwrap();
    let status = Command::new("g++")
        .current_dir(&dir)
        .args(["-g", "-O0"])
        .args(options)
        .args(["-o", "program", "program.cc"])
        .status()
        .expect("g++ is needed to run this test");
    assert!(status.success(), "g++ {options:?}");
    let file = FileBytes::Mapped(Arc::new(Mapping::open(&program).unwrap()));
    std::fs::remove_dir_all(&dir).unwrap(); // what is mapped stays
    file
}

/// Asks twice: with names that are looked for one by one, and when all units have been read.
fn with_types<T>(file: &FileBytes, ask: impl Fn(&Types<'_>) -> T) -> Option<T> {
    let dwarf = ModuleDwarf {
        main: DwarfFile::load(file).ok()??,
        supplementary: None,
    };
    let dwarf = dwarf.borrow();
    let units = Units::read(&dwarf);
    let index = Index::default();
    let types = Types::new(&dwarf, &units, &index);
    ask(&types);
    index.whole(&dies::Dies::new(&dwarf, &units));
    Some(ask(&types))
}

#[test]
#[cfg_attr(
    not(feature = "fixtures"),
    ignore = "needs g++, and --features fixtures"
)]
fn a_name_is_looked_for_in_the_units_that_mention_it() {
    let file = compile(&["-gdwarf-5"]);
    let dwarf = ModuleDwarf {
        main: DwarfFile::load(&file).unwrap().unwrap(),
        supplementary: None,
    };
    let dwarf = dwarf.borrow();
    let units = Units::read(&dwarf);
    let index = Index::default();
    let types = Types::new(&dwarf, &units, &index);
    check_span(&types);
    assert!(types.variable("instance").is_some());
    assert!(types.layout("no_such_type").is_none());
    assert!(!index.is_whole());
    // Blanks may stand anywhere in template arguments.
    assert!(types.layout("outer::Map< 3 >").is_some());
    assert!(index.is_whole());
}

fn offset_and_size(field: &Field) -> (u64, u64) {
    (field.offset, field.size)
}

fn check_span(types: &Types<'_>) {
    let span = types.layout("outer::Span").unwrap();
    assert_eq!(span.size, 48);
    let field = |name: &str| span.field(name).unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(offset_and_size(field("length")), (8, 8));
    assert_eq!(field("length").type_name.as_deref(), Some("Length"));
    assert_eq!(field("next").type_name.as_deref(), Some("outer::Span*"));
    assert_eq!(field("prev").type_name.as_deref(), Some("outer::Span*"));
    assert_eq!(offset_and_size(field("objects")), (32, 8), "in a union");
    assert_eq!(field("space").count, Some(8));
    let bits = |name: &str| (field(name).offset, field(name).bits.unwrap());
    assert_eq!(bits("refcount"), (40, (320, 16)));
    assert_eq!(bits("sizeclass"), (40, (336, 8)));
    assert_eq!(bits("location"), (40, (344, 2)));
    assert_eq!(bits("sample"), (40, (346, 1)));
}

fn check_derived(types: &Types<'_>) {
    let derived = types.layout("class outer::Derived").unwrap();
    let field = |name: &str| derived.field(name).unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(offset_and_size(field("base_b")), (4, 1), "inherited");
    assert_eq!(offset_and_size(field("tree_")), (8, 72));
    assert_eq!(field("tree_").type_name.as_deref(), Some("outer::Map<3>"));
    assert_eq!(offset_and_size(field("matrix_")), (80, 120));
    assert_eq!(field("matrix_").count, Some(15));
    assert_eq!(field("matrix_").type_name.as_deref(), Some("double"));
    assert_eq!(offset_and_size(field("unnamed_")), (200, 16));
    assert_eq!(offset_and_size(field("unnamed_.y")), (208, 8));
    assert_eq!(field("span_").type_name.as_deref(), Some("outer::Span"));
    assert_eq!(
        field("kind_").type_name.as_deref(),
        Some("outer::Derived::Kind")
    );
    assert_eq!(field("flexible_").count, Some(0));
    assert!(derived.field("instance_").is_none(), "static members");

    let map = types.layout("outer::Map<3>").unwrap();
    assert_eq!(map, types.layout("outer::Derived::Tree").unwrap());
    assert_eq!(map.field("root").unwrap().count, Some(8));
    assert_eq!(map.field("allocate").unwrap().offset, 64);
    assert_eq!(types.layout("outer::Map<3>::Leaf").unwrap().size, 32);
    assert_eq!(types.layout("outer::Derived::Inner").unwrap().size, 8);
    assert_eq!(types.layout("outer::Hidden").unwrap().size, 96);
    assert_eq!(
        types
            .layout("outer::(anonymous namespace)::Hidden")
            .unwrap()
            .size,
        96
    );
    let typedef = types.layout("named_by_typedef").unwrap();
    assert_eq!(typedef.field("in_typedef").unwrap().offset, 0);
    for absent in [
        "opaque",
        "outer::Nothing",
        "Span",
        "Length",
        "",
        "outer::",
        "outer::Span::x",
    ] {
        assert!(types.layout(absent).is_none(), "{absent}");
    }
}

fn check_variables(types: &Types<'_>, file: &FileBytes) {
    let symbols = SymbolIndex::read(std::slice::from_ref(file));
    for (name, mangled, size, kind) in [
        (
            "outer::Derived::instance_",
            "_ZN5outer7Derived9instance_E",
            280,
            "outer::Derived",
        ),
        (
            "outer::Derived::table_",
            "_ZN5outer7Derived6table_E",
            28,
            "int",
        ),
        (
            "outer::hidden_",
            "_ZN5outer12_GLOBAL__N_17hidden_E",
            96,
            "outer::(anonymous namespace)::Hidden",
        ),
        ("outer::heads_", "_ZN5outerL6heads_E", 32, "outer::Span*"),
        ("instance", "instance", 4, "named_by_typedef"),
        ("opaque_pointer", "opaque_pointer", 8, "opaque*"),
    ] {
        let (address, facts) = types.variable(name).unwrap_or_else(|| panic!("no {name}"));
        let symbol = symbols
            .find(mangled)
            .unwrap_or_else(|| panic!("no {mangled}"));
        assert_eq!(address, symbol.start, "{name}");
        assert_eq!(facts.size, Some(size), "{name}");
        assert_eq!(facts.name.as_deref(), Some(kind), "{name}");
    }
    assert!(types.variable("inside_main").is_none(), "a function's own");
    assert!(types.variable("outer::Derived::tree_").is_none());
}

#[test]
#[cfg_attr(
    not(feature = "fixtures"),
    ignore = "needs g++, and --features fixtures"
)]
fn every_dialect_of_gcc_gives_the_same_layouts() {
    for options in [
        &["-gdwarf-4"][..],
        &["-gdwarf-5"],
        &["-gdwarf-3", "-gstrict-dwarf"],
        &["-gdwarf-4", "-fdebug-types-section"],
        &["-gdwarf-5", "-fdebug-types-section"],
        &["-gdwarf-5", "-gz=zlib"],
        &["-gdwarf-4", "-gz=zlib-gnu"],
    ] {
        println!("{options:?}"); // which one, if it fails
        let file = compile(options);
        with_types(&file, |types| {
            check_span(types);
            check_derived(types);
            check_variables(types, &file);
        })
        .unwrap_or_else(|| panic!("{options:?}: no debug information"));
    }
}

/// Lines are counted from the raw string's first, empty one.
const INLINED: &str = r#"
#define NOINLINE __attribute__((noipa))
#define INLINE static inline __attribute__((always_inline))
extern "C" NOINLINE void at_return(void*) { asm volatile(""); }
namespace space {
  INLINE void innermost() {
    at_return(__builtin_return_address(0));
  }
  namespace { INLINE void middle(int times) {
    if (times)
      innermost();
  } }
  struct Outer {
    NOINLINE int method(int times) {
      middle(times);
      return times + 1;
    }
  };
}
int main(int count, char**) { return space::Outer().method(count); }
"#;

#[test]
#[cfg_attr(
    not(feature = "fixtures"),
    ignore = "needs g++, and --features fixtures"
)]
fn inlined_calls_are_told_with_their_lines() {
    for options in [
        &["-gdwarf-4", "-O2"][..],
        &["-gdwarf-5", "-O2"],
        &["-gdwarf-5", "-O1", "-gz=zlib"],
    ] {
        println!("{options:?}"); // which one, if it fails
        let file = compile_text(INLINED, options);
        let symbols = SymbolIndex::read(std::slice::from_ref(&file));
        let method = symbols.find("_ZN5space5Outer6methodEi").unwrap();
        let dwarf = ModuleDwarf {
            main: DwarfFile::load(&file).unwrap().unwrap(),
            supplementary: None,
        };
        let dwarf = dwarf.borrow();
        let units = Units::read(&dwarf);
        let lines = LineIndex::build(&dwarf, &units);
        let told = |at| {
            let found = lines.at(&dwarf, &units, at);
            let frames = found.frames.iter();
            let frames = frames.map(|frame| (frame.function.clone(), frame.line));
            frames.collect::<Vec<_>>()
        };
        let expected = [
            ("space::innermost", 7),
            ("space::(anonymous namespace)::middle", 11),
            ("space::Outer::method(int)", 15),
        ]
        .map(|(function, line)| (Some(function.to_owned()), Some(line)));
        let all = method.start..method.start + method.size;
        assert!(
            all.clone().any(|at| told(at) == expected),
            "{:?}",
            all.map(told).collect::<Vec<_>>()
        );
        let found = lines.at(&dwarf, &units, method.start);
        assert_eq!(found.start, Some(method.start));
        assert_eq!(found.frames[0].file.as_deref(), Some("program.cc"));
        assert!(lines.at(&dwarf, &units, 1).frames.is_empty());
        assert!(lines.at(&dwarf, &units, u64::MAX).frames.is_empty());
    }
}

#[test]
#[cfg_attr(
    not(feature = "fixtures"),
    ignore = "needs g++, and --features fixtures"
)]
fn symbols_packed_in_a_stripped_image_are_found() {
    let dir = std::env::temp_dir().join(format!("heapcheck-packed-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("whole"), compile_text(INLINED, &["-g0"]).bytes()).unwrap();
    for step in [
        &["xz", "-k", "whole"][..],
        &[
            "objcopy",
            "-S",
            "--add-section",
            ".gnu_debugdata=whole.xz",
            "whole",
            "stripped",
        ],
    ] {
        let status = Command::new(step[0])
            .args(&step[1..])
            .current_dir(&dir)
            .status();
        assert!(status.unwrap().success(), "{step:?}");
    }
    let stripped = FileBytes::Mapped(Arc::new(Mapping::open(&dir.join("stripped")).unwrap()));
    std::fs::remove_dir_all(&dir).unwrap();

    let plain = SymbolIndex::read(std::slice::from_ref(&stripped));
    assert!(plain.find("main").is_none());
    let symbols = plain.with_partial(&files::packed_symbols(&stripped).unwrap());
    let main = symbols.find("main").unwrap();
    assert_eq!(symbols.function_at(main.start).unwrap().1, "main");
    assert!(!symbols.has_symtab(), "a part only");
}

#[test]
#[cfg_attr(
    not(feature = "fixtures"),
    ignore = "needs g++, and --features fixtures"
)]
fn split_debug_information_is_said_to_be_missing() {
    let file = compile(&["-gdwarf-5", "-gsplit-dwarf"]);
    let dwarf = ModuleDwarf {
        main: DwarfFile::load(&file).unwrap().unwrap(),
        supplementary: None,
    };
    assert_eq!(Units::read(&dwarf.borrow()).split, 1);
}

fn flipped_lines(file: &FileBytes, code: std::ops::Range<u64>) -> Option<()> {
    let dwarf = ModuleDwarf {
        main: DwarfFile::load(file).ok()??,
        supplementary: None,
    };
    let dwarf = dwarf.borrow();
    let units = Units::read(&dwarf);
    let lines = LineIndex::build(&dwarf, &units);
    for at in code.step_by(7).chain([0, u64::MAX]) {
        let found = lines.at(&dwarf, &units, at);
        assert!(found.frames.len() < 300);
    }
    Some(())
}

/// Reads all variables and what they are made of, a few steps deep.
fn flipped_catalog(file: &FileBytes) -> Option<usize> {
    let dwarf = ModuleDwarf {
        main: DwarfFile::load(file).ok()??,
        supplementary: None,
    };
    let dwarf = dwarf.borrow();
    let units = Units::read(&dwarf);
    let index = Index::default();
    let module = ModuleId(0);
    let catalog = Catalog::new(vec![Some(Types::new(&dwarf, &units, &index))]);
    let statics = catalog.statics(module);
    let mut left: Vec<catalog::TypeRef> = statics
        .iter()
        .filter_map(|variable| {
            let place = variable.entry;
            let entry = catalog::TypeRef { module, place };
            Some(catalog.variable(entry)?.1)
        })
        .collect();
    let mut read = 0;
    while let Some(of) = left.pop()
        && read < 500
    {
        let Some(found) = catalog.read(of) else {
            continue;
        };
        read += 1;
        match found.form {
            catalog::Form::Pointer(target) => left.extend(target),
            catalog::Form::Array { element, .. } => left.push(element),
            catalog::Form::Structure(structure) => {
                left.extend(structure.members.iter().map(|member| member.of));
            }
            _ => {}
        }
    }
    Some(statics.len())
}

#[test]
#[cfg_attr(
    not(feature = "fixtures"),
    ignore = "needs g++, and --features fixtures"
)]
fn variables_with_one_place_are_found_wherever_they_are_declared() {
    // instance_, table_, instance, opaque_pointer, inner_instance, leaf_instance; and hidden_, heads_, inside_main, which are nowhere
    // once the compiler has seen that nobody writes them.
    for (options, expected) in [
        (&["-gdwarf-5"][..], 9),
        (&["-gdwarf-4", "-O2"], 6),
        (&["-gdwarf-2"], 9),
    ] {
        let file = compile(options);
        assert_eq!(flipped_catalog(&file), Some(expected), "{options:?}");
    }
}

#[test]
#[cfg_attr(
    not(feature = "fixtures"),
    ignore = "needs g++, and --features fixtures"
)]
fn flipped_bytes_never_panic() {
    flip(PROGRAM, &["-gdwarf-5", "-fdebug-types-section"]);
    flip(INLINED, &["-gdwarf-5", "-O2"]);
    flip(INLINED, &["-gdwarf-4", "-O2", "-ffunction-sections"]);
}

fn flip(text: &str, options: &[&str]) {
    let file = compile_text(text, &[options, &["-DFLIPPED"]].concat());
    let good = file.bytes();
    let image = image::ElfImage::parse(good).unwrap();
    let code = image.section_range(".text").unwrap();
    let places: Vec<_> = [
        ".debug_info",
        ".debug_abbrev",
        ".debug_str",
        ".debug_line",
        ".debug_rnglists",
        ".debug_line_str",
    ]
    .into_iter()
    .filter_map(|name| match image.section(name).unwrap() {
        image::SectionBytes::File(range) => Some(range),
        _ => None, // not in this version
    })
    .collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for _ in 0..1500 {
        let mut bytes = good.to_vec();
        for _ in 0..=random(8) {
            let place = &places[random(places.len())];
            let at = place.start + random(place.len());
            bytes[at] ^= 1 << random(8);
        }
        let flipped = FileBytes::Memory(bytes.into());
        let _ = flipped_lines(&flipped, code.clone());
        let _ = flipped_catalog(&flipped);
        with_types(&flipped, |types| {
            for name in [
                "outer::Span",
                "outer::Derived",
                "outer::Map<3>",
                "named_by_typedef",
            ] {
                let _ = types.layout(name);
            }
            for name in ["outer::Derived::table_", "outer::hidden_", "instance"] {
                let _ = types.variable(name);
            }
        });
    }
}
