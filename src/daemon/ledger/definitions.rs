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
use std::borrow::Cow;
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
enum Line<'a> {
    /// What a definer had, by its checksum.
    Env(u64, Cow<'a, Context>),
    Service {
        line: u64,
        id: Id,
        base: u64,
        spec: Cow<'a, Spec>,
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

/// What definers had, by checksum.
type Contexts = HashMap<u64, Weak<Context>>;

/// The open file of definitions.
#[derive(Debug)]
pub struct Definitions<K: Kernel> {
    pub(super) file: K::File,
    length: u64,
    /// Bytes that still counted, about, when the file was opened or last rewritten.
    live: u64,
    next_line: u64,
    /// Environments in the file that some service shares.
    known: Contexts,
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

fn encode(line: &Line<'_>, out: &mut Vec<u8>) -> Result<()> {
    let json = serde_json::to_vec(line).map_err(|_| Errno::INVAL)?;
    out.extend_from_slice(format!("{:016x} ", checksum(&json)).as_bytes());
    out.extend_from_slice(&json);
    out.push(b'\n');
    Ok(())
}

/// Encodes services, and what their definers had unless it is in the file; gives what was added.
fn encode_all<'a>(
    known: &Contexts,
    services: impl Iterator<Item = (u64, Id, &'a Definition)>,
) -> Result<(Vec<u8>, Contexts)> {
    let (mut bytes, mut added) = (Vec::new(), Contexts::new());
    // Those of one request share it.
    let mut last: Option<(&Rc<Context>, u64)> = None;
    for (line, id, Definition { spec, base: context }) in services {
        let same = last.filter(|(last, _)| Rc::ptr_eq(last, context));
        let base = same.map_or_else(|| key_of(context), |(_, key)| key);
        last = Some((context, base));
        let is_known = known.get(&base).is_some_and(|known| known.strong_count() > 0);
        if !is_known && added.insert(base, Rc::downgrade(context)).is_none() {
            encode(&Line::Env(base, Cow::Borrowed(context)), &mut bytes)?;
        }
        encode(&Line::Service { line, id, base, spec: Cow::Borrowed(spec) }, &mut bytes)?;
    }
    Ok((bytes, added))
}

/// None: it is damaged. Err: it is as it was written, and not understood.
fn decode(line: &[u8]) -> Option<std::result::Result<Line<'static>, String>> {
    let (sum, json) = line.split_at_checked(17)?;
    let sum = u64::from_str_radix(std::str::from_utf8(sum).ok()?.trim_end(), 16).ok()?;
    if checksum(json) != sum {
        return None;
    }
    Some(serde_json::from_slice(json).map_err(|error| error.to_string()))
}

impl<K: Kernel> Definitions<K> {
    /// Reads the file, made if missing. `after`: no line up to this one is given, for a slot speaks
    /// of it, and it may be lost.
    pub fn open(kernel: &mut K, after: u64) -> Result<(Self, Loaded)> {
        let bytes = kernel.load(FILE)?.unwrap_or_default();
        let file = kernel.open(FILE, Mode::InPlace)?;
        let mut contexts: HashMap<u64, Rc<Context>> = HashMap::new();
        let mut loaded = Loaded::default();
        // Beyond what an earlier file of this home ever had: a copy of that may be put back, and
        // its lines must not be taken for those that the journal speaks of.
        let next_line = kernel.wall().saturating_mul(LINES_PER_MS);
        let mut next_line = next_line.max(after.saturating_add(1));
        let mut lines = 0;
        for line in bytes.split_inclusive(|b| *b == b'\n') {
            lines += 1;
            match line.strip_suffix(b"\n").and_then(decode) {
                Some(Ok(Line::Env(key, context))) => {
                    contexts.insert(key, Rc::new(context.into_owned()));
                }
                Some(Ok(Line::Service { line, id, base, spec })) => {
                    next_line = next_line.max(line.saturating_add(1));
                    let (spec, base) = (spec.into_owned(), contexts.entry(base).or_default());
                    loaded.services.insert(line, (id, Definition { spec, base: base.clone() }));
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
        let known: Contexts = contexts.iter().map(|(k, c)| (*k, Rc::downgrade(c))).collect();
        drop(contexts);
        let shared = known.values().filter(|context| context.strong_count() > 0).count();
        let live = length * (loaded.services.len() + shared) as u64 / lines.max(1);
        Ok((Self { file, length, live, next_line, known }, loaded))
    }

    /// The shared form of what a definer had.
    pub fn intern(&mut self, context: Context) -> Rc<Context> {
        let known = self.known.get(&key_of(&context)).and_then(Weak::upgrade);
        known.filter(|known| **known == context).unwrap_or_else(|| Rc::new(context))
    }

    /// Puts new services on record, all or none, and gives each its line.
    pub fn append<'a>(
        &mut self,
        kernel: &mut K,
        services: impl Iterator<Item = (Id, &'a Definition)>,
    ) -> Result<std::ops::Range<u64>> {
        let first = self.next_line;
        let mut next = first;
        let services = services.map(|(id, definition)| {
            next += 1;
            (next - 1, id, definition)
        });
        self.put(kernel, services)?;
        self.next_line = next;
        Ok(first..next)
    }

    /// Puts services on record under the lines that they have, all or none: whoever reads the file
    /// takes the last one of a line, and the journal's slots stay true. Errors: ENOSPC, EDQUOT,
    /// EIO: then the file is as it was.
    pub fn put<'a>(
        &mut self,
        kernel: &mut K,
        services: impl Iterator<Item = (u64, Id, &'a Definition)>,
    ) -> Result<()> {
        let (bytes, added) = encode_all(&self.known, services)?;
        self.write(kernel, &bytes)?;
        self.known.extend(added);
        Ok(())
    }

    /// Puts on record that a service is gone. Errors: as [`Definitions::put`]; the journal has it
    /// already, so that it may be ignored.
    pub fn remove(&mut self, kernel: &mut K, line: u64) -> Result<()> {
        let mut bytes = Vec::new();
        encode(&Line::Removed(line), &mut bytes)?;
        self.write(kernel, &bytes)
    }

    fn write(&mut self, kernel: &mut K, bytes: &[u8]) -> Result<()> {
        if let Err(errno) = write_all_at(kernel, &self.file, self.length, bytes) {
            return kernel.set_len(&self.file, self.length).and(Err(errno));
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Writes the file anew with what still counts, if it has doubled since all of it did. The old
    /// one stays until the new one is whole.
    /// Errors: Any of open, write, fsync, rename: then the old file goes on.
    pub fn compact<'a>(
        &mut self,
        kernel: &mut K,
        services: impl Iterator<Item = (u64, Id, &'a Definition)>,
    ) -> Result<()> {
        if self.length <= COMPACT_BYTES_MIN.max(2 * self.live) {
            return Ok(());
        }
        let (bytes, known) = encode_all(&Contexts::new(), services)?;
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
