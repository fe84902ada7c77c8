//! Files that declare services for others: never run as programs, never read. Pure.
use super::output::Failure;

/// How such a file's name ends, in lower case, and what it is.
const ENDINGS: &[(&str, &str)] = &[
    (".config.js", "a configuration in JavaScript, as PM2 has it"),
    (".config.cjs", "a configuration in JavaScript, as PM2 has it"),
    (".config.mjs", "a configuration in JavaScript, as PM2 has it"),
    (".config.ts", "a configuration in TypeScript"),
    (".yml", "YAML"),
    (".yaml", "YAML"),
    (".toml", "TOML"),
    (".ini", "a configuration, as supervisord has it"),
    ("supervisord.conf", "a configuration, as supervisord has it"),
    (".service", "a unit of systemd"),
];

/// Refuses the file `path` if its name says that it declares something, but not to opm.
pub(super) fn refuse(path: &str) -> Result<(), Failure> {
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    let ending = ENDINGS.iter().find(|(ending, _)| name.ends_with(ending));
    let what = match ending {
        Some((_, what)) => what,
        None if name == "procfile" || name.starts_with("procfile.") => "a Procfile",
        None => return Ok(()),
    };
    let advice = "write it as JSON, see opm-file(5), and 'opm import' that";
    Err(Failure::plain(format!("{path}: is {what}, which opm does not read ({advice})")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_read_is_told_from_programs() {
        for path in ["ecosystem.config.js", "./a/pm2.config.cjs", "X.YML", "Procfile.dev", "w.ini"]
        {
            assert!(refuse(path).unwrap_err().text.starts_with(path), "{path}");
        }
        for path in ["config.js", "ecosystem.js", "procfile-server", "app.json", "yaml", "a.yml/b"]
        {
            assert!(refuse(path).is_ok(), "{path}");
        }
    }
}
