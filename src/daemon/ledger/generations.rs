//! The highest generation that was ever given, in a file of its own: with it an older copy of the
//! journal is told from the newest one, and a lost journal takes no number with it.
use crate::mutant::mutant;
use crate::process::journal_format::{decode_number, encode_number};
use crate::sys::{Kernel, Mode, Result, write_all_at};

/// The file's name in the home.
pub const FILE: &str = "generations";

/// The open file.
#[derive(Debug)]
pub struct Generations<F> {
    file: F,
    written: u64,
}

impl<F: std::fmt::Debug> Generations<F> {
    /// Opens it; its number is 0 if it is new, lost or damaged.
    pub fn open<K: Kernel<File = F>>(kernel: &mut K) -> Result<Self> {
        let bytes = kernel.load(FILE)?.unwrap_or_default();
        let file = kernel.open(FILE, Mode::InPlace)?;
        let written = decode_number(&bytes).filter(|_| !mutant("forget_numbers")).unwrap_or(0);
        Ok(Self { file, written })
    }

    /// The number in it.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// The open file.
    pub fn file(&self) -> &F {
        &self.file
    }

    /// Writes a higher number.
    pub fn write<K: Kernel<File = F>>(&mut self, kernel: &mut K, generation: u64) -> Result<()> {
        if self.written < generation {
            write_all_at(kernel, &self.file, 0, &encode_number(generation))?;
            self.written = generation;
        }
        Ok(())
    }
}
