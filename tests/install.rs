//! `make install` and `make uninstall`, with a stand-in for the binary: nothing is built.
#![expect(
    clippy::unwrap_used,
    reason = "a test's way to fail; clippy exempts test functions only, not what they call"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A directory of this test alone; gone when it ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = format!("opm-install-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(path);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Makes `target` into `to`. The binary is the one that cargo has just built for the tests.
fn make(target: &str, to: &Path, more: &[&str]) {
    let output = Command::new("make")
        .current_dir(root())
        .args(["--no-print-directory", target])
        .arg(format!("DESTDIR={}", to.display()))
        .arg(concat!("BIN=", env!("CARGO_BIN_EXE_opm")))
        .args(more)
        // Not a part of the make that may run these tests.
        .env_remove("MAKEFLAGS")
        .env_remove("MAKELEVEL")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "make {target}: {said}");
}

/// Every file below `directory`, relative to it.
fn files(directory: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut queue = vec![directory.to_owned()];
    while let Some(next) = queue.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                queue.push(path);
            } else {
                let relative = path.strip_prefix(directory).unwrap();
                found.insert(relative.to_str().unwrap().to_owned());
            }
        }
    }
    found
}

fn expected(prefix: &str) -> BTreeSet<String> {
    let own = [
        "bin/opm",
        "share/bash-completion/completions/opm",
        "share/fish/vendor_completions.d/opm.fish",
        "share/zsh/site-functions/_opm",
    ];
    let mut wanted: BTreeSet<String> = own.map(|path| format!("{prefix}/{path}")).into();
    for unit in ["system/opm", "system/opm-services", "user/opm", "user/opm-services"] {
        wanted.insert(format!("{prefix}/lib/systemd/{unit}.service"));
    }
    for name in files(&root().join("man")) {
        let to = match name.strip_prefix("examples/") {
            Some(example) => format!("{prefix}/share/doc/opm/examples/{example}"),
            None if name.ends_with(".json") => format!("{prefix}/share/opm/{name}"),
            None => {
                let section = name.rsplit('.').next().unwrap();
                format!("{prefix}/share/man/man{section}/{name}")
            }
        };
        wanted.insert(to);
    }
    wanted
}

#[test]
fn uninstall_leaves_nothing_of_what_install_put_there() {
    let scratch = Scratch::new("all");
    make("install", &scratch.0, &[]);
    assert_eq!(files(&scratch.0), expected("usr/local"));
    make("uninstall", &scratch.0, &[]);
    assert_eq!(std::fs::read_dir(&scratch.0).unwrap().count(), 0);
}

#[test]
fn uninstall_takes_nothing_that_is_not_ours() {
    let scratch = Scratch::new("others");
    make("install", &scratch.0, &["PREFIX=/opt/x"]);
    assert_eq!(files(&scratch.0), expected("opt/x"));
    let other = scratch.0.join("opt/x/share/man/man1/other.1");
    std::fs::write(&other, "").unwrap();
    make("uninstall", &scratch.0, &["PREFIX=/opt/x"]);
    assert_eq!(files(&scratch.0), BTreeSet::from(["opt/x/share/man/man1/other.1".to_owned()]));
}

#[test]
fn uninstall_keeps_empty_directories_that_install_did_not_make() {
    let scratch = Scratch::new("root");
    for other in ["proc", "usr/src"] {
        std::fs::create_dir_all(scratch.0.join(other)).unwrap();
    }
    make("install", &scratch.0, &["PREFIX=/usr"]);
    make("uninstall", &scratch.0, &["PREFIX=/usr"]);
    for other in ["proc", "usr/src"] {
        assert!(scratch.0.join(other).is_dir(), "{other}");
    }
    assert!(!scratch.0.join("usr/share").exists());
}

#[test]
fn a_prefix_with_a_blank_in_it_is_one_word() {
    let scratch = Scratch::new("blank");
    make("install", &scratch.0, &["PREFIX=/opt/a b"]);
    assert_eq!(files(&scratch.0), expected("opt/a b"));
    make("uninstall", &scratch.0, &["PREFIX=/opt/a b"]);
    assert_eq!(std::fs::read_dir(&scratch.0).unwrap().count(), 0);
}

#[test]
fn what_is_installed_is_as_it_should_be() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new("modes");
    make("install", &scratch.0, &[]);
    let mode = |path: &str| {
        let metadata = std::fs::metadata(scratch.0.join("usr/local").join(path)).unwrap();
        metadata.permissions().mode() & 0o7777
    };
    assert_eq!(mode("bin/opm"), 0o755);
    assert_eq!(mode("share/man/man1/opm.1"), 0o644);
    let version = Command::new(scratch.0.join("usr/local/bin/opm")).arg("--version").output();
    let version = String::from_utf8(version.unwrap().stdout).unwrap();
    assert_eq!(version, concat!("opm ", env!("CARGO_PKG_VERSION"), "\n"));
}

/// In the machine's own PID namespace, where kernel threads are seen and somebody else reaps:
/// the suite in `tests/real` runs in namespaces of its own.
#[test]
fn the_demo_holds_what_it_says() {
    let demo = Command::new("sh")
        .args(["tests/demo.sh", env!("CARGO_BIN_EXE_opm")])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&demo.stdout);
    let complained = String::from_utf8_lossy(&demo.stderr);
    assert!(demo.status.success(), "{said}\n{complained}");
}

/// As under sudo, whose PATH has no cargo.
#[test]
fn install_takes_what_is_built_and_builds_nothing() {
    let scratch = Scratch::new("built");
    let target = scratch.0.join("target");
    let install = || {
        let mut command = Command::new("make");
        command.current_dir(env!("CARGO_MANIFEST_DIR")).arg("install").arg("CARGO=/no/cargo");
        command.arg(format!("CARGO_TARGET_DIR={}", target.display()));
        command.arg(format!("DESTDIR={}", scratch.0.join("to").display()));
        command.env_remove("MAKEFLAGS").env_remove("MAKELEVEL").output().unwrap()
    };
    let output = install();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("run make first"), "{said}");
    std::fs::create_dir_all(target.join("release")).unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_opm"), target.join("release/opm")).unwrap();
    assert!(install().status.success());
    assert!(scratch.0.join("to/usr/local/bin/opm").exists());
}
