//! Instructions against what the processor's manual says of them.

use ground::target::{
    Abi, Address, Fault, Region, RegionKind, RegisterSet, Source, TargetMemory, Window,
};

use super::instruction::{Access, Instruction, at_fault};
use ground::arch::X86_64;

const CODE: u64 = 0x40_1000;
const FS_BASE: u64 = 0x7000_0000;

/// A page of code.
struct Code(Vec<u8>, [Region; 1]);

impl TargetMemory for Code {
    fn abi(&self) -> Abi {
        Abi {
            pointer_bytes: 8,
            little_endian: true,
            page_bytes: 4096,
        }
    }

    fn window(&self, at: Address) -> Result<Window<'_>, Fault> {
        let offset = usize::try_from(at.get().wrapping_sub(CODE)).unwrap();
        let rest = self.0.get(offset..).filter(|rest| !rest.is_empty());
        let bytes = rest.ok_or(Fault::Unmapped(at))?;
        Ok(Window {
            start: at,
            bytes,
            source: Source::Core,
        })
    }

    fn regions(&self) -> &[Region] {
        &self.1
    }
}

/// Decodes with rax = 0x10, rcx = 3, rsp = 0x7fff_0000 and all else unknown.
fn decode(code: &[u8], fault: Option<u64>) -> Instruction {
    let region = Region {
        range: Address::new(CODE)..Address::new(CODE + 4096),
        readable: true,
        writable: false,
        executable: true,
        kind: RegionKind::Anonymous,
        dumped_bytes: 4096,
        present_bytes: 4096,
    };
    let mut registers = RegisterSet::empty();
    for (number, value) in [(0, 0x10), (2, 3), (7, 0x7fff_0000), (16, CODE)] {
        registers.set(number, value);
    }
    at_fault(
        &X86_64,
        &Code(code.to_vec(), [region]),
        &registers,
        Some(Address::new(FS_BASE)),
        fault.map(Address::new),
    )
    .unwrap()
}

#[test]
fn the_operand_at_fault_is_told_with_its_registers() {
    // mov [rax+rcx*8+0x10], rdx
    let found = decode(&[0x48, 0x89, 0x54, 0xc8, 0x10], Some(0x38));
    assert!(found.explains_fault);
    assert_eq!(found.bytes.len(), 5);
    assert!(found.text.starts_with("mov "), "{}", found.text);
    let operand = &found.operands[0];
    assert_eq!(
        (operand.access, operand.address, operand.bytes),
        (Access::Write, Some(Address::new(0x38)), 8)
    );
    assert_eq!(operand.expression, "rax + rcx*8 + 0x10");
    let names: Vec<_> = operand
        .registers
        .iter()
        .map(|r| (r.name, r.value))
        .collect();
    assert_eq!(names, [("rax", Some(0x10)), ("rcx", Some(3))]);
}

#[test]
fn pushes_calls_and_threads_have_their_addresses() {
    // push rbp, at the end of a stack
    let push = decode(&[0x55], Some(0x7ffe_fff8));
    assert!(push.explains_fault);
    assert_eq!(push.operands[0].access, Access::Write);
    // mov rbx, fs:[0x28]
    let canary = decode(&[0x64, 0x48, 0x8b, 0x1c, 0x25, 0x28, 0, 0, 0], None);
    assert_eq!(
        canary.operands[0].address,
        Some(Address::new(FS_BASE + 0x28))
    );
    // call [rbx]: what rbx held is not known
    let call = decode(&[0xff, 0x13], None);
    let unknown = call
        .operands
        .iter()
        .find(|operand| operand.expression == "rbx");
    assert_eq!(unknown.unwrap().address, None);
    // call rax goes to 0x10 and pushes
    let call = decode(&[0xff, 0xd0], Some(0x10));
    assert_eq!(call.operands[0].access, Access::Execute);
    // mov rax, [rip+0x10]
    let global = decode(&[0x48, 0x8b, 0x05, 0x10, 0, 0, 0], None);
    assert_eq!(global.operands[0].address, Some(Address::new(CODE + 0x17)));
}

#[test]
fn what_cannot_be_decoded_is_said_to_be_bad() {
    assert_eq!(decode(&[0x06, 0, 0, 0], None).text, "(bad instruction)");
    assert!(decode(&[0x48], None).operands.is_empty());
    for trap in 0..20 {
        assert!(!decode(&[0x90], None).can_raise(Some(trap), None), "{trap}");
    }
    assert!(decode(&[0x48, 0xf7, 0xf1], None).can_raise(Some(0), None));
    assert!(decode(&[0x0f, 0x0b], None).can_raise(Some(6), None));
    assert!(decode(&[0x55], None).can_raise(Some(14), Some(Address::new(0x7ffe_fff8))));
    assert!(!decode(&[0x55], None).can_raise(Some(14), Some(Address::new(0x1000))));
}
