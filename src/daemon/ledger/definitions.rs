//! Definitions: an append-only file, a line for each service defined and each environment it
//! was captured in, with a checksum each; rewritten whole when most of it is past.
//!
//! The journal's slot says which line a service is. A torn last line is a definition whose
//! request was never answered.
use crate::process::journal_format::checksum;
use crate::service::context::{Attributes, Context};
use crate::service::spec::{Definition, Id, Spec};
use crate::sys::{Errno, Kernel, Mode, Result, write_all_at};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::rc::{Rc, Weak};

/// The file's name in the home.
pub const FILE: &str = "services";
const FRESH: &str = "services.new";
/// Below this size nothing is rewritten.
const COMPACT_BYTES_MIN: u64 = 64 << 10;
/// More than are ever written in a millisecond.
const LINES_PER_MS: u64 = 1_000;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    /// What a definer had, by its checksum.
    Env(u64, Context),
    Service {
        line: u64,
        id: Id,
        base: u64,
        spec: Spec,
    },
    /// The service of that line was removed. The journal says so too; this is for the day when
    /// the journal is lost.
    Removed(u64),
}

/// What the file holds.
#[derive(Debug, Default)]
pub struct Loaded {
    /// By line number; the last line of an id is its newest.
    pub services: BTreeMap<u64, (Id, Definition)>,
    /// Lines that could not be read.
    pub damaged: usize,
    /// Why a line that is whole is none of ours: a later opm wrote it.
    pub unknown: Option<String>,
}

/// A definition that takes the place of another.
#[derive(Debug)]
pub struct Change {
    pub line: u64,
    pub id: Id,
    pub new: Definition,
    pub old: Definition,
}

/// The open file of definitions.
#[derive(Debug)]
pub struct Definitions<F> {
    file: F,
    length: u64,
    /// Bytes of the file that still count, about.
    live: u64,
    next_line: u64,
    /// Environments in the file that some service shares.
    known: HashMap<u64, Weak<Context>>,
}

fn key_of(context: &Context) -> u64 {
    let mut text = String::new();
    for (name, value) in &context.env {
        text.push_str(name);
        text.push('=');
        text.push_str(value);
        text.push('\0');
    }
    if context.attributes != Attributes::default() {
        text.push_str(&format!("{:?}", context.attributes));
    }
    checksum(text.as_bytes())
}

fn encode(line: &Line, out: &mut Vec<u8>) -> Result<()> {
    let json = serde_json::to_vec(line).map_err(|_| Errno::INVAL)?;
    out.extend_from_slice(format!("{:016x} ", checksum(&json)).as_bytes());
    out.extend_from_slice(&json);
    out.push(b'\n');
    Ok(())
}

/// None: it is damaged. Err: it is as it was written, and not understood.
fn decode(line: &[u8]) -> Option<std::result::Result<Line, String>> {
    let (sum, json) = line.split_at_checked(17)?;
    let sum = u64::from_str_radix(std::str::from_utf8(sum).ok()?.trim_end(), 16).ok()?;
    if checksum(json) != sum {
        return None;
    }
    Some(serde_json::from_slice(json).map_err(|error| error.to_string()))
}

impl<F: std::fmt::Debug> Definitions<F> {
    /// Reads the file, made if missing.
    ///
    /// # Errors
    /// What open(2) and read(2) say.
    pub fn open<K: Kernel<File = F>>(kernel: &mut K) -> Result<(Self, Loaded)> {
        let bytes = kernel.load(FILE)?.unwrap_or_default();
        let file = kernel.open(FILE, Mode::InPlace)?;
        let mut envs: HashMap<u64, Rc<Context>> = HashMap::new();
        let mut env_bytes: HashMap<u64, u64> = HashMap::new();
        let mut line_bytes: HashMap<u64, (u64, u64)> = HashMap::new();
        let mut loaded = Loaded::default();
        // Beyond what an earlier file of this home ever had: a copy of that may be put back, and
        // its lines must not be taken for those that the journal speaks of.
        let mut next_line = kernel.wall().saturating_mul(LINES_PER_MS).max(1);
        for line in bytes.split_inclusive(|b| *b == b'\n') {
            let size = line.len() as u64;
            match line.strip_suffix(b"\n").and_then(decode) {
                Some(Ok(Line::Env(key, env))) => {
                    envs.insert(key, Rc::new(env));
                    env_bytes.insert(key, size);
                }
                Some(Ok(Line::Service { line, id, base, spec })) => {
                    next_line = next_line.max(line.saturating_add(1));
                    line_bytes.insert(line, (size, base));
                    let base = envs.entry(base).or_default().clone();
                    loaded.services.insert(line, (id, Definition { spec, base }));
                }
                Some(Ok(Line::Removed(line))) => {
                    next_line = next_line.max(line.saturating_add(1));
                    loaded.services.remove(&line);
                }
                Some(Err(reason)) => loaded.unknown = Some(reason),
                None => loaded.damaged += 1,
            }
        }
        // A torn last line must not swallow the next one.
        let torn = bytes.iter().rev().take_while(|b| **b != b'\n').count();
        let length = (bytes.len() - torn) as u64;
        let known = envs.iter().map(|(key, env)| (*key, Rc::downgrade(env))).collect();
        let mut live = 0;
        for line in loaded.services.keys() {
            let (size, base) = line_bytes.get(line).copied().unwrap_or_default();
            // Of an environment that several share, the first is charged.
            live += size + env_bytes.remove(&base).unwrap_or(0);
        }
        let definitions = Self { file, length, live, next_line, known };
        Ok((definitions, loaded))
    }

    /// The open file.
    pub fn file(&self) -> &F {
        &self.file
    }

    /// Gives no line number up to this one: a slot speaks of it, and its line may be lost.
    pub fn begin_after(&mut self, line: u64) {
        self.next_line = self.next_line.max(line.saturating_add(1));
    }

    /// The shared form of what a definer had.
    pub fn intern(&mut self, context: Context) -> Rc<Context> {
        if let Some(known) = self.known.get(&key_of(&context)).and_then(Weak::upgrade)
            && *known == context
        {
            return known;
        }
        Rc::new(context)
    }

    /// Puts services on record, all or none, and gives each its line.
    ///
    /// # Errors
    /// ENOSPC, EDQUOT, EIO: then the file is as it was.
    pub fn append<K: Kernel<File = F>>(
        &mut self,
        kernel: &mut K,
        services: &[(Id, &Definition)],
    ) -> Result<Vec<u64>> {
        let mut bytes = Vec::new();
        let mut lines = Vec::new();
        let mut written: Vec<(u64, &Rc<Context>)> = Vec::new();
        for (id, definition) in services {
            let base = self.encode_base(&definition.base, &mut written, &mut bytes)?;
            let line = self.next_line + lines.len() as u64;
            encode(
                &Line::Service { line, id: *id, base, spec: definition.spec.clone() },
                &mut bytes,
            )?;
            lines.push(line);
        }
        self.write(kernel, &bytes)?;
        self.next_line += lines.len() as u64;
        self.note_written(&written);
        Ok(lines)
    }

    /// Puts new definitions of services on record, under the lines that they have: whoever reads
    /// the file takes the last one of a line, and the journal's slots stay true.
    ///
    /// # Errors
    /// As [`Definitions::append`].
    pub fn replace<K: Kernel<File = F>>(
        &mut self,
        kernel: &mut K,
        changes: &[Change],
    ) -> Result<()> {
        let mut bytes = Vec::new();
        let mut past = Vec::new();
        let mut written: Vec<(u64, &Rc<Context>)> = Vec::new();
        for Change { line, id, new, old } in changes {
            let (line, id) = (*line, *id);
            let base = self.encode_base(&new.base, &mut written, &mut bytes)?;
            let spec = new.spec.clone();
            encode(&Line::Service { line, id, base, spec }, &mut bytes)?;
            let spec = old.spec.clone();
            encode(&Line::Service { line, id, base, spec }, &mut past)?;
        }
        self.write(kernel, &bytes)?;
        self.live = self.live.saturating_sub(past.len() as u64);
        self.note_written(&written);
        Ok(())
    }

    /// What a definer had is nobody's any more: its line is past.
    pub fn forget(&mut self, context: &Context) {
        let mut past = Vec::new();
        // It was encoded before.
        encode(&Line::Env(u64::MAX, context.clone()), &mut past).ok();
        self.live = self.live.saturating_sub(past.len() as u64);
    }

    /// The key of what a definer had, which is encoded too unless it is in the file.
    fn encode_base<'a>(
        &self,
        context: &'a Rc<Context>,
        written: &mut Vec<(u64, &'a Rc<Context>)>,
        bytes: &mut Vec<u8>,
    ) -> Result<u64> {
        let key = key_of(context);
        let known = self.known.get(&key).and_then(Weak::upgrade).is_some()
            || written.iter().any(|(other, _)| *other == key);
        if !known {
            encode(&Line::Env(key, (**context).clone()), bytes)?;
            written.push((key, context));
        }
        Ok(key)
    }

    fn note_written(&mut self, written: &[(u64, &Rc<Context>)]) {
        self.known.extend(written.iter().map(|(key, context)| (*key, Rc::downgrade(context))));
    }

    /// Puts on record that a service is gone.
    ///
    /// # Errors
    /// As [`Definitions::append`]; the journal has it already, so that it may be ignored.
    pub fn remove<K: Kernel<File = F>>(
        &mut self,
        kernel: &mut K,
        line: u64,
        definition: &Definition,
    ) -> Result<()> {
        let mut past = Vec::new();
        let Definition { spec, base } = definition;
        let (id, spec) = (0, spec.clone());
        let service = Line::Service { line, id, base: u64::MAX, spec };
        encode(&service, &mut past)?;
        if Rc::strong_count(base) == 1 {
            self.forget(base);
        }
        let start = past.len();
        encode(&Line::Removed(line), &mut past)?;
        self.write(kernel, &past[start..])?;
        self.live = self.live.saturating_sub(past.len() as u64);
        Ok(())
    }

    fn write<K: Kernel<File = F>>(&mut self, kernel: &mut K, bytes: &[u8]) -> Result<()> {
        if let Err(errno) = write_all_at(kernel, &self.file, self.length, bytes) {
            return kernel.set_len(&self.file, self.length).and(Err(errno));
        }
        self.length += bytes.len() as u64;
        self.live += bytes.len() as u64;
        Ok(())
    }

    /// Whether most of the file is past.
    pub fn wants_compaction(&self) -> bool {
        self.length > COMPACT_BYTES_MIN && self.live < self.length / 2
    }

    /// Writes the file anew with what still counts. The old one stays until the new one is whole.
    ///
    /// # Errors
    /// Any of open, write, fsync, rename: then the old file goes on.
    pub fn compact<'a, K: Kernel<File = F>>(
        &mut self,
        kernel: &mut K,
        services: impl Iterator<Item = (u64, Id, &'a Definition)>,
    ) -> Result<()> {
        let mut bytes = Vec::new();
        let mut known: HashMap<u64, Weak<Context>> = HashMap::new();
        for (line, id, definition) in services {
            let base = key_of(&definition.base);
            if known.insert(base, Rc::downgrade(&definition.base)).is_none() {
                encode(&Line::Env(base, (*definition.base).clone()), &mut bytes)?;
            }
            encode(&Line::Service { line, id, base, spec: definition.spec.clone() }, &mut bytes)?;
        }
        let file = kernel.open(FRESH, Mode::Fresh)?;
        write_all_at(kernel, &file, 0, &bytes)?;
        kernel.sync(&file)?;
        kernel.rename(FRESH, FILE)?;
        self.file = file;
        self.length = bytes.len() as u64;
        self.live = self.length;
        self.known = known;
        Ok(())
    }
}
