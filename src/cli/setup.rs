//! `daemon setup`: the installed examples of units, with this program and home in them: systemd
//! starts the daemon at boot, which brings the services back, and stops them at shutdown.
use super::client::Client;
use super::launch::own_program;
use super::output::{Done, Failure, failed, print};
use crate::wire::code;
use clap::ArgMatches;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const UNITS: [(&str, &str); 2] = [
    ("opm.service", include_str!("../../man/examples/opm.service")),
    ("opm-services.service", include_str!("../../man/examples/opm-services.service")),
];
/// What stands for this program and this home in the examples.
const PROGRAM: &str = "/usr/local/bin/opm";
const HOME: &str = "%h/.opm";

pub(super) fn setup(client: &Client, options: &ArgMatches) -> Done {
    let is_users = options.get_flag("user") || !rustix::process::geteuid().is_root();
    let unit = |text: &str| -> Result<String, Failure> {
        Ok(text.replace(PROGRAM, &path(&own_program())?).replace(HOME, &path(&client.home)?))
    };
    if options.get_flag("print") {
        for (name, text) in UNITS {
            print(&format!("# {name}\n{}", unit(text)?.trim_end()))?;
        }
        return Ok(code::DONE);
    }
    let directory = directory(is_users)?;
    let scope: &[&str] = if is_users { &["--user"] } else { &[] };
    if options.get_flag("remove") {
        systemctl(scope, &["disable", UNITS[0].0, UNITS[1].0]);
        for (name, _) in UNITS {
            let path = directory.join(name);
            match std::fs::remove_file(&path) {
                Ok(()) => print(&format!("{}: removed", path.display()))?,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(failed(path.display())(e)),
            }
        }
        systemctl(scope, &["daemon-reload"]);
        return Ok(code::DONE);
    }
    std::fs::create_dir_all(&directory).map_err(failed(directory.display()))?;
    for (name, text) in UNITS {
        let path = directory.join(name);
        std::fs::write(&path, unit(text)?).map_err(failed(path.display()))?;
        print(&format!("{}: written", path.display()))?;
    }
    let [daemon, services] = UNITS.map(|(name, _)| name.trim_end_matches(".service"));
    let line = |words: &str| format!("systemctl {}{words}", if is_users { "--user " } else { "" });
    if systemctl(scope, &["daemon-reload"]) && systemctl(scope, &["enable", daemon, services]) {
        print("enabled: at boot the daemon starts and restores what 'opm save' kept")?;
    } else {
        print(&format!("to enable it: {}", line(&format!("enable {daemon} {services}"))))?;
    }
    print(&format!("to start it now: {}", line(&format!("start {daemon} {services}"))))?;
    print(&format!("to upgrade the daemon in place: {}", line(&format!("reload {daemon}"))))?;
    if is_users {
        print("for services that run without a login: loginctl enable-linger")?;
    }
    Ok(code::DONE)
}

/// Where an administrator's units of this scope are: systemd.unit(5).
fn directory(is_users: bool) -> Result<PathBuf, Failure> {
    if !is_users {
        return Ok("/etc/systemd/system".into());
    }
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|it| it.is_absolute());
    let config = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")));
    let config = config.ok_or_else(|| Failure::plain("HOME is not set (set it)"))?;
    Ok(config.join("systemd/user"))
}

/// A path as it stands in a unit: what systemd would take for its own is refused.
fn path(path: &Path) -> Result<String, Failure> {
    let is_plain = |c: char| !c.is_whitespace() && !c.is_control() && !"\"'\\%$;".contains(c);
    let text = path.to_str().filter(|text| text.chars().all(is_plain));
    text.map(str::to_owned).ok_or_else(|| {
        Failure::plain(format!("{}: no path for a unit (take a plainer one)", path.display()))
    })
}

/// Whether systemd is there and did it.
fn systemctl(scope: &[&str], words: &[&str]) -> bool {
    let mut command = Command::new("systemctl");
    command.args(scope).args(words).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
