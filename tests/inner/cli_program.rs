//! Of `cli::program`: compiled with the library, for it uses what is private there.
use super::*;
use std::os::unix::fs::PermissionsExt;

/// A directory of this test alone; gone when it ends.
struct Scratch(Place);

impl Scratch {
    fn new(name: &str) -> Self {
        let cwd = std::env::temp_dir().join(format!("opm-{name}-{}", std::process::id()));
        std::fs::create_dir_all(cwd.join("bin")).unwrap();
        let scratch = Self(Place { path: "bin".into(), cwd });
        for program in ["node", "python3", "sh", "bash", "perl", "serve"] {
            scratch.file(&format!("bin/{program}"), "", 0o755);
        }
        scratch
    }

    fn file(&self, name: &str, text: &str, mode: u32) {
        let path = self.0.cwd.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn words(&self, target: &str) -> Vec<String> {
        self.0.command(target).unwrap()
    }

    fn error(&self, target: &str) -> String {
        self.0.command(target).unwrap_err().text
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0.cwd).unwrap();
    }
}

#[test]
fn a_script_runs_through_its_interpreter_unless_it_can_run_itself() {
    let scratch = Scratch::new("scripts");
    scratch.file("a.js", "#!/usr/bin/env node\n", 0o644);
    scratch.file("b.js", "#!/usr/bin/env node\n", 0o755);
    scratch.file("c.py", "", 0o755);
    scratch.file("d.sh", "#!/usr/bin/env bash\n", 0o644);
    scratch.file("e.sh", "echo", 0o644);
    scratch.file("f.ts", "", 0o644);
    scratch.file("g.rb", "", 0o644);
    scratch.file("-h.py", "", 0o644);
    assert_eq!(scratch.words("a.js"), ["node", "a.js"]);
    assert_eq!(scratch.words("./a.js"), ["node", "./a.js"]);
    assert_eq!(scratch.words("b.js"), ["./b.js"]);
    assert_eq!(scratch.words("c.py"), ["python3", "c.py"]);
    assert_eq!(scratch.words("d.sh"), ["bash", "d.sh"]);
    assert_eq!(scratch.words("e.sh"), ["sh", "e.sh"]);
    assert_eq!(scratch.words("f.ts"), ["node", "f.ts"]);
    assert_eq!(scratch.words("-h.py"), ["python3", "./-h.py"]);
    assert_eq!(scratch.words("a.js --port 3"), ["node", "a.js", "--port", "3"]);
    assert_eq!(scratch.error("g.rb"), "g.rb: its interpreter ruby is not in PATH");
}

#[test]
fn a_file_is_preferred_to_a_program_in_path_if_it_can_be_run() {
    let scratch = Scratch::new("files");
    scratch.file("serve", "", 0o644);
    assert_eq!(scratch.words("serve"), ["serve"]);
    scratch.file("serve", "", 0o755);
    assert_eq!(scratch.words("serve"), ["./serve"]);
    scratch.file("data.conf", "", 0o644);
    assert!(scratch.error("data.conf").contains("neither executable"));
}

#[test]
fn a_directory_is_no_command() {
    let scratch = Scratch::new("directories");
    std::fs::create_dir_all(scratch.0.cwd.join("serve")).unwrap();
    for directory in [".", "..", "bin", "./serve"] {
        let line = format!("{directory}: is a directory (name the file in it)");
        assert_eq!(scratch.error(directory), line);
    }
    assert_eq!(scratch.words("serve"), ["serve"], "the one in PATH");
}

#[test]
fn a_line_is_split_and_a_shell_runs_only_what_needs_one() {
    let scratch = Scratch::new("lines");
    assert_eq!(scratch.words("serve 'a b' c"), ["serve", "a b", "c"]);
    assert_eq!(scratch.words("serve && x"), ["/bin/sh", "-c", "serve && x"]);
    assert_eq!(scratch.words("serve>x"), ["/bin/sh", "-c", "serve>x"]);
    let nope = "nope: no such service, file or program (try 'opm ls')";
    assert_eq!(scratch.error("nope"), nope);
    assert_eq!(scratch.error("nope --x"), nope);
}
