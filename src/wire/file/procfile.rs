//! A Procfile: `web: node server.js`, a line for each service.
use super::{ProcessFile, Reader, Source, directory_of};
use crate::process::shell;
use crate::service::spec::Spec;

/// The port of the first line, where the caller has none; each line has a hundred more.
const PORT: u32 = 5_000;

pub(super) fn read(text: &str, source: &Source<'_>, found: &mut ProcessFile) -> Result<(), String> {
    let base = (source.variable)("PORT").and_then(|port| port.parse().ok()).unwrap_or(PORT);
    let cwd = directory_of(source.directory, "").unwrap_or_default();
    let mut ports = (0..).map(|n: u32| base.saturating_add(n.saturating_mul(100)));
    for (n, line) in text.lines().enumerate() {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut reader = Reader::new(source, format!("line {}", n + 1));
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let split = line.split_once(':').map(|(name, command)| (name, command.trim()));
        match split {
            Some((name, command))
                if !name.is_empty() && name.chars().all(is_plain) && !command.is_empty() =>
            {
                let port = ports.next().unwrap_or(base);
                if name == "release" {
                    reader.warn("release is no service: run it before the others");
                } else {
                    let words = shell::argv(command).map_err(|e| reader.wrong(name, e))?;
                    let env = vec![("PORT".to_owned(), port.to_string())];
                    let spec = Spec { env, ..Spec::new(name.to_owned(), words, cwd.clone()) };
                    spec.check().map_err(|reason| format!("{}: {reason}", source.label))?;
                    found.specs.push(spec);
                }
            }
            _ => reader.warn("is not NAME: COMMAND, and left out"),
        }
        found.warnings.append(&mut reader.warnings);
    }
    Ok(())
}
