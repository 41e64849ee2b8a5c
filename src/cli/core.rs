//! Which core is read, and with what.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{PathBufValueParser, TypedValueParser};

use super::size;
use postmortem::corefile::OpenOptions;

/// What `CORE [BINARY] [ADDRESS]...` may hold: what begins with `0x` is an address, anything else a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operand {
    /// A core or the program that died.
    File(PathBuf),
    /// An address of the dead process.
    Address(u64),
}

/// The core, the program that died, and how they are opened.
#[derive(Args, Clone, Debug)]
pub struct CoreArgs {
    /// The core file (plain or compressed, `-`: standard input) and the program that died, in either order
    // A command that takes addresses gives this argument another name and number by `mut_arg`.
    #[arg(value_name = "CORE] [BINARY", num_args = 1..=2, required_unless_present = "core", value_parser = operand())]
    operands: Vec<Operand>,

    /// The core file, as debuggers take it: `heapcheck BINARY -c CORE`
    #[arg(short, long, value_name = "CORE")]
    core: Option<PathBuf>,

    /// Where a packed core, or one from a pipe, is unpacked [default: $TMPDIR, else /var/tmp]
    #[arg(long, value_name = "DIR", help_heading = "Files")]
    tmpdir: Option<PathBuf>,

    /// Unpack at most this much of a core (K, M, G, T: binary multiples) [default: until the folder's file system is almost full]
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = "Files")]
    max_unpacked: Option<u64>,

    /// Use so many threads [default: as many as the machine has]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), help_heading = "Analysis")]
    threads: Option<u16>,
}

impl CoreArgs {
    /// The core that `-c` names, then the files in the order of the command line: which is which is told by what is in them.
    pub fn files(&self) -> Vec<PathBuf> {
        let named = self.operands.iter().filter_map(|operand| match operand {
            Operand::File(path) => Some(path),
            Operand::Address(_) => None,
        });
        self.core.iter().chain(named).cloned().collect()
    }

    /// The addresses, in the order of the command line.
    pub fn addresses(&self) -> Vec<u64> {
        let addresses = self.operands.iter().filter_map(|operand| match operand {
            Operand::Address(address) => Some(*address),
            Operand::File(_) => None,
        });
        addresses.collect()
    }

    /// Threads to work with; `None`: as many as the machine has.
    pub fn jobs(&self) -> Option<usize> {
        self.threads.map(usize::from)
    }

    /// How the core is opened.
    pub fn open_options(&self) -> OpenOptions {
        OpenOptions {
            temporary_dir: self.tmpdir.clone().unwrap_or_else(temporary_dir),
            max_unpacked_bytes: self.max_unpacked,
        }
    }

    /// What clap cannot find wrong.
    pub(super) fn validate(&self, takes_addresses: bool) -> Result<(), String> {
        match self.addresses().first() {
            Some(address) if !takes_addresses => {
                return Err(format!(
                    "{address:#x} is an ADDRESS, which this command does not take; a file of that name is written ./{address:#x}"
                ));
            }
            _ => {}
        }
        if self.core.is_some() && self.files().len() > 2 {
            return Err("-c names the core, so there can be one BINARY only".into());
        }
        Ok(())
    }
}

fn operand() -> impl TypedValueParser<Value = Operand> {
    PathBufValueParser::new().try_map(|path| {
        match path.to_str().and_then(|text| text.strip_prefix("0x")) {
            Some(digits) if digits.bytes().all(|digit| digit.is_ascii_hexdigit()) => {
                u64::from_str_radix(digits, 16)
                    .map(Operand::Address)
                    .map_err(|_| "not an ADDRESS: 1 to 16 hexadecimal digits behind 0x")
            }
            Some(_) => Err("not an ADDRESS; a file of that name is written ./0x..."),
            None => Ok(Operand::File(path)),
        }
    })
}

/// `TMPDIR`, else a folder that is no memory: an unpacked core is large.
fn temporary_dir() -> PathBuf {
    std::env::var_os("TMPDIR")
        .filter(|dir| !dir.is_empty())
        .map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from)
}
