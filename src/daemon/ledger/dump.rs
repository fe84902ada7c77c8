//! The dump that `save` writes and `restore` reads, so that at every instant a whole one is there.
use crate::daemon::services::Services;
use crate::service::context::Context;
use crate::service::machine::Goal;
use crate::service::spec::{Id, Spec};
use crate::service::time::rfc3339;
use crate::sys::home::NOT_REGULAR;
use crate::sys::{Kernel, Mode, Result, describe, write_all_at};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::rc::Rc;

/// The dump, the one before it, and what they are made as.
pub(crate) const FILE: &str = "dump.json";
const BACKUP: &str = "dump.json.bak";
const FRESH: &str = "dump.json.new";
const DAMAGED: &str = "dump.json.damaged";
const VERSION: u32 = 1;

/// The dump's format. Environments are kept once each.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Dump {
    version: u32,
    saved_at: String,
    pub(crate) environments: Vec<Rc<Context>>,
    pub(crate) services: Vec<Saved>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Saved {
    pub(crate) id: Id,
    pub(crate) up: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) halted: bool,
    /// Its place in the dump's environments.
    pub(crate) environment: usize,
    #[serde(flatten)]
    pub(crate) spec: Spec,
}

fn dump(wall: u64, services: &Services) -> Dump {
    let mut environments: Vec<Rc<Context>> = Vec::new();
    let mut places: HashMap<*const Context, usize> = HashMap::new();
    let services = services.iter().map(|service| {
        let base = &service.definition.base;
        let environment = *places.entry(Rc::as_ptr(base)).or_insert_with(|| {
            environments.push(base.clone());
            environments.len() - 1
        });
        let up = service.machine.goal() == Goal::Up;
        let (id, halted) = (service.id, service.record.halted);
        Saved { id, up, halted, environment, spec: service.definition.spec.clone() }
    });
    let services = services.collect();
    Dump { version: VERSION, saved_at: rfc3339(wall), environments, services }
}

fn parse(bytes: &[u8]) -> std::result::Result<Dump, String> {
    let dump: Dump = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if dump.version != VERSION {
        return Err(format!("format {} is not one that this opm reads", dump.version));
    }
    for saved in &dump.services {
        saved.spec.check()?;
        if saved.environment >= dump.environments.len() {
            return Err(format!("{}: its environment is missing", saved.spec.name));
        }
    }
    Ok(dump)
}

/// Writes `bytes` as `name`: temporary file, fsync, rename, fsync of the directory.
pub(super) fn replace<K: Kernel>(kernel: &mut K, name: &str, bytes: &[u8]) -> Result<()> {
    let file = kernel.open(FRESH, Mode::Fresh)?;
    write_all_at(kernel, &file, 0, bytes)?;
    kernel.sync(&file)?;
    kernel.rename(FRESH, name)?;
    kernel.sync_home()
}

/// Writes the dump; the one before, if whole, becomes the backup. Errors: one line.
pub(crate) fn save<K: Kernel>(
    kernel: &mut K,
    home: &str,
    services: &Services,
) -> std::result::Result<(), String> {
    let dump = dump(kernel.wall(), services);
    let bytes = serde_json::to_vec_pretty(&dump).map_err(|error| error.to_string())?;
    let before = kernel.load(FILE).ok().flatten().filter(|before| parse(before).is_ok());
    let kept = before.map_or(Ok(()), |before| replace(kernel, BACKUP, &before));
    kept.and_then(|()| replace(kernel, FILE, &bytes)).map_err(|errno| {
        // What is written to is the fresh one.
        let file = if errno == NOT_REGULAR { FRESH } else { FILE };
        format!("cannot write {home}/{file}: {} (the one before is kept)", describe(errno))
    })
}

/// Reads the dump, or the one before it, with warnings. Errors: one line for the operator.
pub(crate) fn load<K: Kernel>(
    kernel: &mut K,
    home: &str,
) -> std::result::Result<(Dump, Vec<String>), String> {
    let mut warnings = Vec::new();
    for name in [FILE, BACKUP] {
        let bytes = match kernel.load(name) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => continue,
            Err(errno) => {
                warnings.push(format!("cannot read {home}/{name}: {}", describe(errno)));
                continue;
            }
        };
        match parse(&bytes) {
            Ok(dump) => {
                if name == BACKUP {
                    warnings.push(format!("restoring from {home}/{BACKUP}"));
                }
                return Ok((dump, warnings));
            }
            Err(reason) if name == FILE => {
                let kept = match kernel.rename(FILE, DAMAGED) {
                    Ok(()) => format!("kept as {home}/{DAMAGED}"),
                    Err(_) => "left where it is".to_owned(),
                };
                warnings.push(format!("{home}/{FILE} is damaged: {reason} ({kept})"));
            }
            Err(reason) => warnings.push(format!("{home}/{name} is damaged: {reason}")),
        }
    }
    Err(match &warnings[..] {
        [] => format!("{home}/{FILE}: there is nothing to restore (save first)"),
        warnings => format!("cannot restore: {}", warnings.join("; ")),
    })
}
