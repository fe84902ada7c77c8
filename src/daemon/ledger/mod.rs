//! What is on record: the journal, the definitions, the highest generation given; and what is
//! still to be written of them.
pub mod definitions;
pub(crate) mod dump;
pub mod generations;
pub mod journal;
pub mod load;

use super::service::Service;
use super::services::Services;
use super::vecmap::VecSet;
use crate::mutant::mutant;
use crate::process::journal_format::{Header, Signature, State};
use crate::service::machine::Sequence;
use crate::service::spec::Id;
use crate::sys::{Errno, Kernel, Result, describe};
use definitions::{Definitions, Loaded};
use generations::Generations;
use journal::{Found, Journal};

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
    removed_slots: Vec<(Id, State)>,
    /// The newest write that failed, for `doctor`.
    pub(crate) disk_error: Option<String>,
}

impl<F: std::fmt::Debug> Ledger<F> {
    /// Opens the files of a home whose journal was found so, and gives what the definitions are.
    /// Errors: the file, and what open(2) and read(2) say.
    pub(crate) fn open<K: Kernel<File = F>>(
        kernel: &mut K,
        found: &Found,
        header: Header,
    ) -> std::result::Result<(Self, Loaded), (&'static str, Errno)> {
        let of = |file: &'static str| move |errno| (file, errno);
        let (mut definitions, loaded) = Definitions::open(kernel).map_err(of(definitions::FILE))?;
        let lines = found.slots.iter().filter_map(|slot| Some(slot.0?.definition));
        definitions.begin_after(lines.max().unwrap_or(0));
        let slots = u32::try_from(found.slots.len()).unwrap_or(0);
        let journal = Journal::open(kernel, slots).map_err(of(journal::FILE))?;
        let generations = Generations::open(kernel).map_err(of(generations::FILE))?;
        let highest = found.slots.iter().map(|slot| load::highest(*slot)).max().unwrap_or(0);
        let sequence = Sequence(highest.max(generations.written()));
        let ledger = Self {
            journal,
            header,
            is_new: false,
            definitions,
            generations,
            sequence,
            dirty: VecSet::default(),
            removed_slots: Vec::new(),
            disk_error: None,
        };
        Ok((ledger, loaded))
    }

    /// The open files by their names in the home.
    pub(crate) fn files(&self) -> [(&'static str, &F); 3] {
        [
            (journal::FILE, self.journal.file()),
            (definitions::FILE, self.definitions.file()),
            (generations::FILE, self.generations.file()),
        ]
    }

    /// Keeps the reason of a write that failed.
    fn noted<T>(&mut self, file: &str, result: Result<T>) -> Result<T> {
        result.inspect_err(|errno| {
            let reason = describe(*errno);
            self.disk_error = Some(format!("cannot write the home's {file}: {reason}"));
        })
    }

    /// Writes the journal's header ([`Journal::claim`]).
    pub(crate) fn claim<K: Kernel<File = F>>(&mut self, kernel: &mut K) -> Result<()> {
        let claimed = self.journal.claim(kernel, &self.header);
        self.noted(journal::FILE, claimed)
    }

    /// Makes room for a slot ([`Journal::reserve`]). Errors: ENOSPC, EDQUOT, EIO.
    pub(crate) fn reserve<K: Kernel<File = F>>(&mut self, kernel: &mut K, id: Id) -> Result<()> {
        let reserved = self.journal.reserve(kernel, id);
        self.noted(journal::FILE, reserved)
    }

    /// Signs for a child ([`Journal::sign`]).
    pub(crate) fn sign<K: Kernel<File = F>>(
        &mut self,
        kernel: &mut K,
        id: Id,
        signature: &Signature,
    ) -> Result<()> {
        let signed = self.journal.sign(kernel, id, signature);
        self.noted(journal::FILE, signed)
    }

    /// Before anything is forked: its generation is on record as given. Errors: as of the journal:
    /// a file of a fixed place, written before.
    pub(crate) fn note_sequence<K: Kernel<File = F>>(&mut self, kernel: &mut K) -> Result<()> {
        let written = self.generations.write(kernel, self.sequence.0);
        self.noted(generations::FILE, written)
    }

    /// Before a child is forked: its slot says which generation is given.
    pub(crate) fn given<K: Kernel<File = F>>(
        &mut self,
        kernel: &mut K,
        id: Id,
        state: &State,
    ) -> Result<()> {
        self.write_slot(kernel, id, state)?;
        self.dirty.remove(&id);
        Ok(())
    }

    /// Writes the daemon's half of a slot.
    pub(crate) fn write_slot<K: Kernel<File = F>>(
        &mut self,
        kernel: &mut K,
        id: Id,
        state: &State,
    ) -> Result<()> {
        let written = self.journal.write(kernel, id, state);
        self.noted(journal::FILE, written)
    }

    /// Puts on record that a service is gone. Its generation stays, for none is ever given twice.
    pub(crate) fn remove<K: Kernel<File = F>>(&mut self, kernel: &mut K, service: &Service) {
        let (id, state) = (service.id, State { removed: true, ..service.state() });
        self.dirty.remove(&id);
        if self.write_slot(kernel, id, &state).is_err() {
            // Else the next daemon would bring it back, beside a new one of its name.
            self.removed_slots.push((id, state));
        }
        // A full disk must not stop a removal: the journal has it already.
        let removed = self.definitions.remove(kernel, service.line);
        self.noted(definitions::FILE, removed).ok();
    }

    /// Writes down what changed. False: something could not be written, and is to be tried again.
    pub(crate) fn write_changes<K: Kernel<File = F>>(
        &mut self,
        kernel: &mut K,
        services: &Services,
    ) -> bool {
        if mutant("forget_state") {
            self.dirty = VecSet::default();
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
        if self.definitions.wants_compaction() {
            let lines = services.iter().map(|s| (s.line, s.id, &s.definition));
            let compacted = self.definitions.compact(kernel, lines);
            self.noted(definitions::FILE, compacted).ok();
        }
        self.dirty.is_empty() && self.removed_slots.is_empty()
    }
}
