//! The highest generation that was ever given, in a file of its own: with it an older copy of the
//! journal is told from the newest one, and a lost journal takes no number with it.
use crate::mutant::mutant;
use crate::process::journal_format::checksum;
use crate::sys::{Kernel, Mode, Result, write_all_at};

/// The file's name in the home.
pub const FILE: &str = "generations";
const BYTES: usize = 16;

/// The open file.
#[derive(Debug)]
pub struct Generations<F> {
    file: F,
    written: u64,
}

impl<F: std::fmt::Debug> Generations<F> {
    /// Opens it, and what it says; 0 if it is new, lost or damaged.
    ///
    /// # Errors
    /// What open(2) and read(2) say.
    pub fn open<K: Kernel<File = F>>(kernel: &mut K) -> Result<(Self, u64)> {
        let bytes = kernel.load(FILE)?.unwrap_or_default();
        let file = kernel.open(FILE, Mode::InPlace)?;
        let written = decode(&bytes).filter(|_| !mutant("forget_numbers")).unwrap_or(0);
        Ok((Self { file, written }, written))
    }

    /// The open file.
    pub fn file(&self) -> &F {
        &self.file
    }

    /// Before anything is forked: what it will be called is given from now on.
    ///
    /// # Errors
    /// As of the journal: a file of a fixed place, written before.
    pub(crate) fn write<K: Kernel<File = F>>(
        &mut self,
        kernel: &mut K,
        generation: u64,
    ) -> Result<()> {
        if self.written < generation {
            write_all_at(kernel, &self.file, 0, &encode(generation))?;
            self.written = generation;
        }
        Ok(())
    }
}

fn encode(generation: u64) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(&generation.to_le_bytes());
    let sum = checksum(&bytes[..8]);
    bytes[8..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<u64> {
    let (number, sum) = bytes.get(..BYTES)?.split_first_chunk::<8>()?;
    (checksum(number).to_le_bytes() == *sum).then(|| u64::from_le_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_reads_back_and_a_torn_one_is_none() {
        assert_eq!(decode(&encode(77)), Some(77));
        let mut torn = encode(77);
        torn[3] = 1;
        assert_eq!(decode(&torn), None);
        assert_eq!(decode(&encode(1)[..12]), None);
        assert_eq!(decode(b""), None);
    }
}
