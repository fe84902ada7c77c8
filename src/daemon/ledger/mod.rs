//! What is on record: journal, definitions, the highest generation; and what is to be written.
pub mod definitions;
pub(crate) mod dump;
pub mod load;

use super::service::Service;
use super::services::Services;
use super::trees::Kept;
use crate::mutant::mutant;
use crate::process::journal_format::{
    Header, SIGNATURE_OFFSET, Signature, State, decode_number, encode_number, slot_offset,
};
use crate::service::machine::Sequence;
use crate::service::spec::Id;
use crate::sys::{Errno, Kernel, Mode, Result, describe, write_all_at};
use definitions::{Definitions, Loaded};
use load::{Found, JOURNAL};
use std::collections::{BTreeMap, BTreeSet};

/// The file of the highest generation that was ever given: with it an older copy of the journal is
/// told from the newest one, and a lost journal takes no number with it.
pub(crate) const GENERATIONS: &str = "generations";

/// The file of incarnations that have ended and of which something was let go.
pub(crate) const KEPT: &str = "kept.json";

/// The open files of record.
#[derive(Debug)]
pub(crate) struct Ledger<K: Kernel> {
    /// For the children to sign in, too.
    pub(crate) journal: K::File,
    /// Slots that the journal has room for.
    slots: u32,
    pub(crate) header: Header,
    /// Nothing was on record when this daemon began.
    pub(crate) is_new: bool,
    pub(crate) definitions: Definitions<K>,
    generations: K::File,
    /// What is in that file; 0 if it was new, lost or damaged.
    pub(crate) highest_written: u64,
    /// The highest generation given.
    pub(crate) sequence: Sequence,
    /// Slots that differ from their service.
    pub(crate) dirty: BTreeSet<Id>,
    /// Slots whose definition is lost, and who signed there last and may live. Another service in
    /// such a slot would be taken for it by the next daemon.
    pub(crate) lost: BTreeMap<Id, u64>,
    /// Slots of removed services whose removal could not be written yet.
    removed_slots: Vec<(Id, State)>,
    /// The newest write that failed, for `doctor`.
    pub(crate) disk_error: Option<String>,
}

impl<K: Kernel> Ledger<K> {
    /// Opens the files of a home whose journal was found so, and gives what the definitions are.
    /// The header stays whose it was until [`Ledger::claim`]. Errors: the file, and why.
    pub(crate) fn open(
        kernel: &mut K,
        found: &Found,
        header: Header,
    ) -> std::result::Result<(Self, Loaded), (&'static str, Errno)> {
        let of = |file: &'static str| move |errno| (file, errno);
        let lines = found.slots.iter().filter_map(|slot| Some(slot.0?.definition));
        let definitions = Definitions::open(kernel, lines.max().unwrap_or(0));
        let (definitions, loaded) = definitions.map_err(of(definitions::FILE))?;
        let journal = kernel.open(JOURNAL, Mode::InPlace).map_err(of(JOURNAL))?;
        let number = kernel.load(GENERATIONS).map_err(of(GENERATIONS))?.unwrap_or_default();
        let generations = kernel.open(GENERATIONS, Mode::InPlace).map_err(of(GENERATIONS))?;
        let number = decode_number(&number).filter(|_| !mutant("forget_numbers"));
        let highest_written = number.unwrap_or(0);
        let highest = found.slots.iter().map(load::highest).max().unwrap_or(0);
        let ledger = Self {
            journal,
            slots: u32::try_from(found.slots.len()).unwrap_or(0),
            header,
            is_new: false,
            definitions,
            generations,
            highest_written,
            sequence: Sequence(highest.max(highest_written)),
            dirty: BTreeSet::default(),
            lost: BTreeMap::default(),
            removed_slots: Vec::new(),
            disk_error: None,
        };
        Ok((ledger, loaded))
    }

    /// The open files by their names in the home.
    pub(crate) fn files(&self) -> [(&'static str, &K::File); 3] {
        [
            (JOURNAL, &self.journal),
            (definitions::FILE, &self.definitions.file),
            (GENERATIONS, &self.generations),
        ]
    }

    /// Keeps the reason of a write that failed.
    fn noted<T>(&mut self, file: &str, result: Result<T>) -> Result<T> {
        result.inspect_err(|errno| {
            let reason = describe(*errno);
            self.disk_error = Some(format!("cannot write the home's {file}: {reason}"));
        })
    }

    fn write_journal(&mut self, kernel: &mut K, offset: u64, bytes: &[u8]) -> Result<()> {
        let written = write_all_at(kernel, &self.journal, offset, bytes);
        self.noted(JOURNAL, written)
    }

    /// Writes the journal's header: from now on the slots are this boot's. Only once they are, for
    /// a daemon that dies before must not make the next one believe what an earlier boot wrote.
    pub(crate) fn claim(&mut self, kernel: &mut K) -> Result<()> {
        self.write_journal(kernel, 0, &self.header.encode())
    }

    /// Makes room up to slot `id`: writes it full of zeroes, so that writing it later takes no
    /// new disk block. Errors: ENOSPC, EDQUOT, EIO: then the file is as long as it was.
    pub(crate) fn reserve(&mut self, kernel: &mut K, id: Id) -> Result<()> {
        if self.slots <= id {
            let offset = slot_offset(self.slots);
            let room = slot_offset(id + 1) - offset;
            if let Err(errno) = self.write_journal(kernel, offset, &vec![0; room as usize]) {
                // What was written of it names nobody, and is written over next time.
                return kernel.set_len(&self.journal, offset).and(Err(errno));
            }
            self.slots = id + 1;
        }
        Ok(())
    }

    /// Writes the child's half of a slot, for one that signed where it is lost.
    pub(crate) fn sign(&mut self, kernel: &mut K, id: Id, signature: &Signature) -> Result<()> {
        let offset = slot_offset(id) + SIGNATURE_OFFSET as u64;
        self.write_journal(kernel, offset, &signature.encode())
    }

    /// Before anything is forked: its generation is on record as given.
    pub(crate) fn note_sequence(&mut self, kernel: &mut K) -> Result<()> {
        let Sequence(highest) = self.sequence;
        if self.highest_written < highest {
            let written = write_all_at(kernel, &self.generations, 0, &encode_number(highest));
            self.noted(GENERATIONS, written)?;
            self.highest_written = highest;
        }
        Ok(())
    }

    /// Incarnations that have ended and of which something was let go.
    pub(crate) fn write_kept(&mut self, kernel: &mut K, kept: &[Kept]) {
        let bytes = serde_json::to_vec(kept).unwrap_or_default();
        let written = dump::replace(kernel, KEPT, &bytes);
        self.noted(KEPT, written).ok();
    }

    /// Writes the daemon's half of a slot. Errors: EIO, ENOSPC (copy on write).
    pub(crate) fn write_slot(&mut self, kernel: &mut K, id: Id, state: &State) -> Result<()> {
        self.write_journal(kernel, slot_offset(id), &state.encode())
    }

    /// Puts on record that a service is gone. Its generation stays, for none is ever given twice.
    pub(crate) fn remove(&mut self, kernel: &mut K, service: &Service) {
        let (id, state) = (service.id, State { removed: true, ..service.state() });
        self.dirty.remove(&id);
        if self.write_slot(kernel, id, &state).is_err() {
            // Else the next daemon would bring it back, beside a new one of its name.
            self.removed_slots.push((id, state));
        }
        // A full disk must not stop a removal: the journal has it already.
        let removed = self.definitions.remove(kernel, service.record.definition);
        self.noted(definitions::FILE, removed).ok();
    }

    /// Writes down what changed. False: something could not be written, and is to be tried again.
    pub(crate) fn write_changes(&mut self, kernel: &mut K, services: &Services) -> bool {
        if mutant("forget_state") {
            self.dirty = BTreeSet::default();
        }
        for id in std::mem::take(&mut self.dirty) {
            if let Some(service) = services.get(id)
                && self.write_slot(kernel, id, &service.state()).is_err()
            {
                self.dirty.insert(id);
            }
        }
        for (id, state) in std::mem::take(&mut self.removed_slots) {
            if services.get(id).is_none() && self.write_slot(kernel, id, &state).is_err() {
                self.removed_slots.push((id, state));
            }
        }
        let lines = services.iter().map(|s| (s.record.definition, s.id, &s.definition));
        let compacted = self.definitions.compact(kernel, lines);
        self.noted(definitions::FILE, compacted).ok();
        self.dirty.is_empty() && self.removed_slots.is_empty()
    }
}
