//! What is on record: the journal, the definitions, the highest generation given; and what is
//! still to be written of them.
pub mod definitions;
pub mod journal;
pub mod load;

use super::generations::Generations;
use super::vecmap::VecSet;
use crate::process::journal_format::{Header, State};
use crate::service::machine::Sequence;
use crate::service::spec::Id;
use crate::sys::{Errno, Kernel};
use definitions::{Definitions, Loaded};
use journal::Journal;

/// The open files of record.
#[derive(Debug)]
pub(crate) struct Ledger<F> {
    pub(crate) journal: Journal<F>,
    /// Of the journal.
    pub(crate) header: Header,
    /// Nothing was on record when this daemon began.
    pub(crate) is_new: bool,
    pub(crate) definitions: Definitions<F>,
    pub(crate) generations: Generations<F>,
    /// The highest generation given.
    pub(crate) sequence: Sequence,
    /// Slots that differ from their service.
    pub(crate) dirty: VecSet<Id>,
    /// Slots of removed services whose removal could not be written yet.
    pub(crate) removed_slots: Vec<(Id, State)>,
    /// The newest write that failed, for `doctor`.
    pub(crate) disk_error: Option<String>,
}

impl<F: std::fmt::Debug> Ledger<F> {
    /// Opens the files, whose journal has so many slots, and gives what the definitions are.
    ///
    /// # Errors
    /// The file, and what open(2) and read(2) say.
    pub(crate) fn open<K: Kernel<File = F>>(
        kernel: &mut K,
        slots: u32,
        header: Header,
    ) -> Result<(Self, Loaded), (&'static str, Errno)> {
        let of = |file: &'static str| move |errno| (file, errno);
        let (definitions, loaded) = Definitions::open(kernel).map_err(of(definitions::FILE))?;
        let journal = Journal::open(kernel, slots).map_err(of(journal::FILE))?;
        let (generations, last) =
            Generations::open(kernel).map_err(of(super::generations::FILE))?;
        let is_new = false;
        let (dirty, removed_slots, disk_error) = (VecSet::new(), Vec::new(), None);
        let sequence = Sequence(last);
        let ledger = Self {
            journal,
            header,
            is_new,
            definitions,
            generations,
            sequence,
            dirty,
            removed_slots,
            disk_error,
        };
        Ok((ledger, loaded))
    }
}
