//! The house rules, held by a test: rooms, sizes, unsafe, dependencies; and that the command
//! line, the man pages, the README and the Makefile speak of the same things.
//!
//! Reads text only, builds nothing. A rule names the file and line that breaks it.
#![expect(
    clippy::unwrap_used,
    reason = "a test's way to fail; clippy exempts test functions only, not what they call"
)]

mod knots;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const COLUMNS_MAX: usize = 100;

/// Who may import whom; `room::item` is that door alone. `mutant` is for everyone.
const ROOMS: &[(&str, &[&str])] = &[
    ("service", &[]),
    ("process", &[]),
    ("wire", &["service", "process"]),
    ("sys", &["service", "process"]),
    ("daemon", &["service", "process", "wire", "sys"]),
    ("run", &["service", "process", "wire", "sys", "daemon"]),
    ("init", &["service", "process", "wire", "sys"]),
    ("cli", &["service", "process", "wire", "sys", "run::options", "daemon::serve"]),
];

/// What of sys the command line may not: it asks, and the daemon supervises.
const DAEMONS_OWN: &[&str] = &["Kernel", "linux", "spawn"];

/// What single files may besides, and why.
const DOORS: &[(&str, &[&str])] = &[
    // A new binary is asked before it takes over.
    ("src/cli/daemon.rs", &["daemon::can_take_over"]),
];

const DEPENDENCIES: &str =
    "clap lexopt libc memchr mio regex-lite rustix serde serde_json signal-hook unicode-width";

/// Where tests have system calls of their own: a program that misbehaves, a signal by number.
/// And `main`, which the C library calls by its name.
const UNSAFE_FIXTURES: &[&str] = &[
    "src/main.rs",
    "tests/fixtures/sys.rs",
    "tests/run/rig.rs",
    "tests/unit/sys_block.rs",
    "tests/unit/sys_spawn.rs",
];

/// What is too long today. Entries may go and numbers may fall; nothing may be added.
const LONG_FILES: &[(&str, usize)] = &[];
const LONG_FUNCTIONS: &[(&str, usize)] = &[("tests/sim/operator.rs:open", 110)];
/// How many lines of a file are too long: shell scripts in literals.
const WIDE_LINES: &[(&str, usize)] =
    &[("tests/containers/single.rs", 1), ("tests/init/left.rs", 3)];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// A Rust file: its path from the root, its text, and the same with comments and literals blank.
struct Source {
    path: String,
    text: String,
    code: String,
}

impl Source {
    /// `src/cli/args.rs` is in the room `cli`.
    fn room(&self) -> Option<&str> {
        let (room, _) = self.path.strip_prefix("src/")?.split_once('/')?;
        Some(room)
    }

    /// How many modules deep: `src/cli/mod.rs` is 1, `src/cli/args.rs` 2.
    fn depth(&self) -> usize {
        let parts = self.path.split('/').count() - 1;
        parts - usize::from(self.path.ends_with("/mod.rs"))
    }
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    let mut queue = vec![root().join("src"), root().join("tests")];
    while let Some(directory) = queue.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                queue.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(root()).unwrap();
                found.push(Source {
                    path: path.to_str().unwrap().to_owned(),
                    code: blanked(&text, true),
                    text,
                });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.len() > 40, "the sources were not found");
    found
}

/// `text` with comments blank, and literals too if asked; lines stay where they are.
fn blanked(text: &str, literals: bool) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
        let (end, is_comment) = match (chars[at], chars.get(at + 1)) {
            ('/', Some('/')) => (find(&chars, at, &['\n']), true),
            ('/', Some('*')) => (find(&chars, at + 2, &['*', '/']) + 2, true),
            ('"', _) => (end_of_string(&chars, at), false),
            ('r', Some('"' | '#')) if !word || chars[at - 1] == 'b' => {
                (end_of_raw(&chars, at), false)
            }
            ('\'', _) => (end_of_char(&chars, at), false),
            _ => (at + 1, false),
        };
        let end = end.clamp(at + 1, chars.len());
        let keep = end == at + 1 || !(is_comment || literals);
        let kept = chars[at..end].iter().map(|c| match c {
            '\n' => '\n',
            c if keep => *c,
            _ => ' ',
        });
        out.extend(kept);
        at = end;
    }
    out
}

fn find(chars: &[char], from: usize, what: &[char]) -> usize {
    let rest = chars.get(from..).unwrap_or_default();
    let found = rest.windows(what.len()).position(|window| window == what);
    found.map_or(chars.len(), |place| from + place)
}

fn end_of_string(chars: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while at < chars.len() && chars[at] != '"' {
        at += 1 + usize::from(chars[at] == '\\');
    }
    at + 1
}

fn end_of_raw(chars: &[char], start: usize) -> usize {
    let hashes = chars[start + 1..].iter().take_while(|c| **c == '#').count();
    if chars.get(start + 1 + hashes) != Some(&'"') {
        return start + 1;
    }
    let mut close = vec!['"'];
    close.extend(std::iter::repeat_n('#', hashes));
    find(chars, start + 2 + hashes, &close) + close.len()
}

/// A lifetime is no literal.
fn end_of_char(chars: &[char], start: usize) -> usize {
    match (chars.get(start + 1), chars.get(start + 2)) {
        (Some('\\'), _) => find(chars, start + 3, &['\'']) + 1,
        (_, Some('\'')) => start + 3,
        _ => start + 1,
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

fn report(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

/// The paths that the code says from the crate's root, without `crate::`, with their lines.
fn imports(source: &Source) -> Vec<(usize, String)> {
    let code = source.code.replace([' ', '\t'], "");
    let rooms: Vec<&str> = ROOMS.iter().map(|(room, _)| *room).collect();
    let path_at = |at: usize| -> String {
        let is_path = |c: &char| c.is_alphanumeric() || "_:".contains(*c);
        code[at..].chars().take_while(is_path).collect()
    };
    let mut found = Vec::new();
    for (at, start) in code.match_indices("crate::") {
        let begin = at + start.len();
        if !code[begin..].starts_with('{') {
            found.push((line_of(&code, at), path_at(begin)));
            continue;
        }
        let (mut level, mut fresh) = (0, true);
        for (n, c) in code[begin..].char_indices() {
            match c {
                '{' => level += 1,
                '}' => level -= 1,
                ',' if level == 1 => fresh = true,
                c if fresh && level == 1 && c.is_alphabetic() => {
                    fresh = false;
                    found.push((line_of(&code, begin + n), path_at(begin + n)));
                }
                _ => {}
            }
            if level == 0 {
                break;
            }
        }
    }
    // Up by as many modules as there are is the crate's root, too.
    let up = "super::".repeat(source.depth());
    for (at, _) in code.match_indices(&up) {
        let path = path_at(at + up.len());
        if rooms.contains(&path.split(':').next().unwrap_or_default()) {
            found.push((line_of(&code, at), path));
        }
    }
    found
}

#[test]
fn rooms_import_only_whom_they_may() {
    let (mut broken, mut used) = (Vec::new(), BTreeSet::new());
    for source in sources() {
        let Some(room) = source.room().map(ToOwned::to_owned) else {
            continue;
        };
        let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            broken.push(format!("{}: a room that no rule knows", source.path));
            continue;
        };
        let doors = DOORS.iter().find(|(path, _)| *path == source.path);
        let doors = doors.map_or(&[][..], |(_, doors)| doors);
        for (line, path) in imports(&source) {
            let is = |of: &&&str| path == **of || path.starts_with(&format!("{of}::"));
            if is(&&room.as_str()) || is(&&"mutant") || allowed.iter().any(|of| is(&of)) {
                continue;
            }
            match doors.iter().find(is) {
                Some(door) => drop(used.insert((source.path.clone(), *door))),
                None => broken.push(format!("{}:{line}: {room} imports {path}", source.path)),
            }
        }
    }
    for (path, door) in DOORS.iter().flat_map(|(path, doors)| doors.iter().map(move |d| (path, d)))
    {
        if !used.contains(&((*path).to_owned(), *door)) {
            broken.push(format!("{path}: no longer imports {door}, take it off the list"));
        }
    }
    report("imports across rooms", &broken);
}

#[test]
fn the_command_line_has_no_hand_in_processes() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| source.room() == Some("cli")) {
        for (at, path) in source.code.match_indices("crate::sys::") {
            let statement = source.code[at + path.len()..].split(';').next().unwrap_or_default();
            if words(statement).any(|word| DAEMONS_OWN.contains(&word)) {
                broken.push(format!("{}:{}", source.path, line_of(&source.code, at)));
            }
        }
    }
    report("cli imports what only the daemon may", &broken);
}

/// What is over the bound and not listed, and what is listed and needn't be.
fn over(found: &BTreeMap<String, usize>, most: usize, listed: &[(&str, usize)]) -> Vec<String> {
    let mut broken = Vec::new();
    for (place, lines) in found {
        let bound = listed.iter().find(|(of, _)| of == place);
        if *lines > bound.map_or(most, |(_, bound)| *bound) {
            broken.push(format!("{place}: {lines} lines"));
        }
    }
    for (place, _) in listed {
        let lines = found.get(*place).copied().unwrap_or(0);
        if lines <= most {
            broken.push(format!("{place}: no longer too long, take it off the list"));
        }
    }
    broken
}

#[test]
fn files_are_short() {
    let lines = sources();
    let lines = lines.iter().map(|s| (s.path.clone(), s.text.lines().count()));
    report("files over 500 lines", &over(&lines.collect(), FILE_LINES_MAX, LONG_FILES));
}

#[test]
fn functions_are_short() {
    let mut found = BTreeMap::new();
    for source in sources() {
        for (at, _) in source.code.match_indices("fn ") {
            let before = source.code[..at].chars().next_back();
            let Some(name) = words(&source.code[at + 3..]).next() else {
                continue;
            };
            let rest = &source.code[at..];
            let open = rest.find(['{', ';']).unwrap_or(0);
            if before.is_some_and(|c| !c.is_whitespace() && c != '(')
                || !rest[open..].starts_with('{')
            {
                continue;
            }
            let mut level = 0;
            let close = rest[open..].char_indices().find(|(_, c)| {
                level += i32::from(*c == '{') - i32::from(*c == '}');
                level == 0
            });
            let body = &rest[..close.map_or(rest.len(), |(n, _)| open + n)];
            let lines = body.lines().count();
            let longest: &mut usize = found.entry(format!("{}:{name}", source.path)).or_default();
            *longest = lines.max(*longest);
        }
    }
    assert!(found.len() > 300, "the functions were not found");
    report("functions over 70 lines", &over(&found, FUNCTION_LINES_MAX, LONG_FUNCTIONS));
}

#[test]
fn lines_fit_100_columns() {
    let mut broken = Vec::new();
    let mut wide: BTreeMap<String, usize> = BTreeMap::new();
    let more = ["Makefile", "README.md", "CHANGELOG.md", "Cargo.toml"];
    let more = more.map(|path| (path.to_owned(), read(path)));
    let all = sources().into_iter().map(|s| (s.path, s.text));
    for (path, text) in all.chain(more) {
        for (n, line) in text.lines().enumerate() {
            // A table can't be wrapped.
            let row = line.strip_prefix("//! ").unwrap_or(line);
            let is_table = row.starts_with('|') && !row.starts_with("||");
            if line.chars().count() > COLUMNS_MAX && !is_table {
                *wide.entry(path.clone()).or_default() += 1;
            }
            if line.ends_with([' ', '\t']) {
                broken.push(format!("{path}:{}: blanks at its end", n + 1));
            }
        }
    }
    broken.extend(over(&wide, 0, WIDE_LINES));
    report("lines over 100 columns, or with blanks at the end", &broken);
}

#[test]
fn unsafe_is_in_sys_alone() {
    let mut broken = Vec::new();
    for source in sources() {
        let may = source.room() == Some("sys") || UNSAFE_FIXTURES.contains(&source.path.as_str());
        if !may && words(&source.code).any(|word| word == "unsafe") {
            broken.push(source.path);
        }
    }
    report("unsafe outside src/sys", &broken);
}

#[test]
fn modules_say_what_they_are() {
    let mut broken = Vec::new();
    for source in sources() {
        if !source.text.starts_with("//!") && !source.path.ends_with("/tests.rs") {
            broken.push(source.path);
        }
    }
    report("files that don't begin with //!", &broken);
}

#[test]
fn names_are_nouns_and_verbs() {
    let mut broken = Vec::new();
    for source in sources() {
        for word in words(&source.code) {
            let lower = word.to_lowercase();
            let noise = ["manager", "helper", "util"];
            if noise.iter().any(|noise| lower.contains(noise)) {
                broken.push(format!("{}: {word}", source.path));
            }
        }
        for (at, _) in source.code.match_indices("fn get_") {
            // The standard library's name for it.
            if source.code[at..].starts_with("fn get_mut(") {
                continue;
            }
            broken.push(format!("{}:{}", source.path, line_of(&source.code, at)));
        }
    }
    report("names that say nothing", &broken);
}

#[test]
fn dependencies_are_those_on_the_list() {
    let mut broken = Vec::new();
    let mut inside = false;
    let mut seen = BTreeSet::new();
    for line in read("Cargo.toml").lines() {
        if line.starts_with('[') {
            inside = line.contains("dependencies");
        } else if let (true, Some((name, _))) = (inside, line.split_once(['=', '.'])) {
            let name = name.trim().trim_matches('"').to_owned();
            if !DEPENDENCIES.split(' ').any(|known| known == name) {
                broken.push(name.clone());
            }
            seen.insert(name);
        }
    }
    assert!(!seen.is_empty());
    report("dependencies off the list", &broken);
}

/// The targets that a contributor has, and those that the README and the gate name.
#[test]
fn what_the_readme_says_to_make_can_be_made() {
    let makefile = read("Makefile");
    let targets: BTreeSet<&str> = makefile
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()))
        .filter_map(|line| line.split_once(':'))
        .map(|(target, _)| target)
        .collect();
    let mut wanted: BTreeSet<String> = "all check test model sim real lint fmt doc man bench demo \
                                        static install uninstall dist clean"
        .split(' ')
        .map(ToOwned::to_owned)
        .collect();
    for path in ["README.md", ".ci/run"] {
        let text = read(path);
        for (at, say) in text.match_indices("make ") {
            let quoted = text[..at].ends_with(['`', '\n', '$']) || text[..at].ends_with("    ");
            let target =
                text[at + say.len()..].split(|c: char| !c.is_ascii_lowercase() && c != '-');
            wanted.extend(target.take(1).filter(|_| quoted).map(ToOwned::to_owned));
        }
    }
    let missing: Vec<String> =
        wanted.into_iter().filter(|target| !targets.contains(target.as_str())).collect();
    report("targets that the Makefile hasn't", &missing);
}

#[test]
fn the_changelog_has_a_place_for_what_is_new() {
    let text = read("CHANGELOG.md");
    assert!(text.lines().any(|line| line == "## [Unreleased]"));
}

#[test]
fn the_results_have_a_place_for_the_benchmark() {
    let text = read("tests/bench/RESULTS.md");
    let begin = text.find("<!-- bench -->").unwrap();
    let end = text.find("<!-- /bench -->").unwrap();
    assert!(begin < end);
}

#[test]
fn nothing_but_the_agreed_is_at_the_top() {
    let agreed =
        "CHANGELOG.md Cargo.lock Cargo.toml LICENSE Makefile README.md man src target tests";
    let agreed: Vec<&str> = agreed.split(' ').collect();
    let entries = std::fs::read_dir(root()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let strange: Vec<String> =
        names.filter(|name| !name.starts_with('.') && !agreed.contains(&name.as_str())).collect();
    report("files at the top", &strange);
}

/// The scanner itself: a scanner that sees nothing would let everything pass.
#[test]
fn the_scanner_sees_code_and_only_code() {
    let text = "a // unsafe\n\"unsafe \\\" {\" 'x' '\\'' &'a str r#\"{\"# /* { */ b'{' fn f() {\n}";
    let code = blanked(text, true);
    assert_eq!(code.lines().count(), text.lines().count());
    assert!(!code.contains("unsafe") && code.contains("fn f() {") && code.contains("&'a str"));
    assert_eq!(code.matches('{').count(), 1, "{code}");
    assert!(blanked(text, false).contains("\"unsafe"));
    let source = Source {
        path: "src/wire/file.rs".to_owned(),
        text: String::new(),
        code: "use crate::{sys::Kernel, process::{a, b}}; super::super::cli::x();".to_owned(),
    };
    let paths: Vec<String> = imports(&source).into_iter().map(|(_, path)| path).collect();
    assert_eq!(paths, ["sys::Kernel", "process::", "cli::x"]);
}
