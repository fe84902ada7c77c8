//! Files that declare services for others: never run as programs, never read. Pure.
use super::output::Failure;

/// How such a file's name ends, in lower case, what it is, and what to do.
const ENDINGS: &[(&str, &str, &str)] = &[
    (".config.ts", "a configuration in TypeScript", AS_JSON),
    (".yml", "YAML", FROM_YAML),
    (".yaml", "YAML", FROM_YAML),
    (".toml", "TOML", AS_JSON),
    (".service", "a unit of systemd", AS_JSON),
];
const AS_JSON: &str = "write it as JSON, see opm-file(5), and 'opm import' that";
const FROM_YAML: &str = "convert it: npx js-yaml FILE > services.json";

/// Refuses the file `path` if its name says that it declares something, but not to opm.
pub(super) fn refuse(path: &str) -> Result<(), Failure> {
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    let Some((_, what, advice)) = ENDINGS.iter().find(|(ending, _, _)| name.ends_with(ending))
    else {
        return Ok(());
    };
    let advice = advice.replace("FILE", path);
    Err(Failure::plain(format!("{path}: is {what}, which opm does not read ({advice})")))
}

#[cfg(test)]
#[path = "../../tests/inner/cli_foreign.rs"]
mod tests;
