//! What a command line is about: `java -jar App.jar` is about `App.jar`, `sh -c 'cd /srv && node
//! server.js'` about `server.js`.
//!
//! Text only, and only a hint: it names services and finds look-alikes. It must never decide
//! that something is dead, nor that it may be killed. Total: any text has an answer.
mod program;
mod tables;

use super::shell::{HEADERS, PREFIXES, is_assignment, simple_commands};

/// So deep lines within lines (`sh -c "sh -c …"`) are followed: a stranger's text, and our stack.
const DEPTH_MAX: usize = 8;

/// The longest name that [`default_name`] makes, in characters.
const NAME_CHARS_MAX: usize = 64;

/// What a command is about. Its rank is the order of preference between those of one line.
struct Subject {
    rank: Rank,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// A shell without anything to run.
    Shell,
    /// What a shell does to itself: `cd`, `wait`.
    Silent,
    /// Something that prepares or filters, or a wrapper around nothing.
    Modest,
    Program,
    /// A script, a module or a main class.
    Script,
    Jar,
}

impl Subject {
    fn new(rank: Rank, word: &str) -> Subject {
        Subject { rank, text: base_name(word).to_owned() }
    }

    /// Something that is run by another program.
    fn run(word: &str) -> Subject {
        Self::new(if is_jar(word) { Rank::Jar } else { Rank::Script }, word)
    }
}

/// What `command` is about, as a base name: a jar first, then a script, then the program, seen
/// through wrappers (`env`, `nice`, `sudo`) and shells. Of several commands in a line the last of
/// the best kind counts, as what comes before prepares it; in a pipe it is the first.
///
/// Empty only if the command is. A shell's own name is the answer only if the line is nothing
/// but a shell.
pub fn extract_search_pattern_from_command(command: &str) -> String {
    // Nothing but operators, assignments or empty words: the text itself is all there is.
    let first = || command.split_whitespace().next().unwrap_or_default();
    let subject = Walk::default().line(command);
    subject.map_or_else(|| base_name(first()).to_owned(), |subject| subject.text)
}

/// The same for words that are already split, as exec and `/proc/PID/cmdline` have them.
pub fn pattern_of_argv(argv: &[impl AsRef<str>]) -> String {
    let words: Vec<&str> = argv.iter().map(AsRef::as_ref).collect();
    let first = || words.iter().find(|word| !word.is_empty()).copied().unwrap_or_default();
    let subject = Walk::default().words(&words);
    subject.map_or_else(|| base_name(first()).to_owned(), |subject| subject.text)
}

/// The program that takes marks off what it starts ([`super::mark`]), if `argv` runs one: in a PAM
/// session of its own, limits are what PAM says and the environment is new.
pub fn mark_remover(argv: &[impl AsRef<str>]) -> Option<&'static str> {
    let words: Vec<&str> = argv.iter().map(AsRef::as_ref).collect();
    let mut walk = Walk::default();
    walk.words(&words);
    walk.mark_remover
}

/// A valid name for a service that runs `argv`: the pattern without its extension.
pub fn default_name(argv: &[impl AsRef<str>]) -> String {
    let words: Vec<&str> = argv.iter().map(AsRef::as_ref).collect();
    let subject = Walk::default().words(&words);
    // What a shell does to itself names nothing, so the shell does.
    let is_silent = subject.is_some_and(|subject| subject.rank == Rank::Silent);
    let pattern = if is_silent { base_name(words[0]).to_owned() } else { pattern_of_argv(argv) };
    let stem = match pattern.rsplit_once('.') {
        Some((stem, _)) if is_script(&pattern) || is_file_of_program(&pattern) => stem,
        _ => &pattern,
    };
    clean_name(stem)
}

/// A valid name that is as near to `text` as can be.
pub fn clean_name(text: &str) -> String {
    // Narrower than what a name may hold: a name that opm itself chooses should need no quotes.
    // The Hangul fillers are letters that do not print.
    let filler = |c| matches!(c, '\u{115F}'..='\u{1160}' | '\u{3164}' | '\u{FFA0}');
    let plain = |c: char| (c.is_alphanumeric() && !filler(c)) || "._@+-".contains(c);
    let cleaned: String = text.chars().map(|c| if plain(c) { c } else { '-' }).collect();
    let trimmed = cleaned.trim_start_matches(['-', '.']).trim_end_matches('-');
    let name: String = trimmed.chars().take(NAME_CHARS_MAX).collect();
    if name.is_empty() {
        return "service".to_owned();
    }
    if name == "all" || name.bytes().all(|b| b.is_ascii_digit()) {
        let short: String = name.chars().take(NAME_CHARS_MAX - "service-".len()).collect();
        return format!("service-{short}");
    }
    name
}

/// The last component of a path, without trailing slashes; of `/` it is `/`.
fn base_name(word: &str) -> &str {
    let trimmed = word.trim_end_matches('/');
    if trimmed.is_empty() && !word.is_empty() {
        return "/";
    }
    trimmed.rsplit('/').next().unwrap_or(trimmed)
}

fn has_extension(word: &str, list: &str) -> bool {
    let split = base_name(word).rsplit_once('.');
    split.is_some_and(|(stem, extension)| {
        !stem.is_empty() && tables::has(list, &extension.to_ascii_lowercase())
    })
}

fn is_jar(word: &str) -> bool {
    has_extension(word, "jar war")
}

fn is_script(word: &str) -> bool {
    has_extension(word, tables::SCRIPT_EXTENSIONS)
}

fn is_file_of_program(word: &str) -> bool {
    has_extension(word, tables::PROGRAM_EXTENSIONS)
}

/// `.` and the like name nothing, so the program before them says more.
fn says_something(word: &str) -> bool {
    !matches!(base_name(word), "" | "." | ".." | "/" | "-")
}

/// `python` for `python3.11`; `-bash`, a login shell, is `bash`.
fn program_kind(word: &str) -> &str {
    let name = base_name(word);
    let name = name.strip_prefix('-').unwrap_or(name);
    let bare = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    if bare.is_empty() { name } else { bare.trim_end_matches('-') }
}

/// One reading of a command, through the lines within it.
#[derive(Default)]
struct Walk {
    depth: usize,
    /// The first program on the way that takes marks off.
    mark_remover: Option<&'static str>,
}

impl Walk {
    fn line(&mut self, line: &str) -> Option<Subject> {
        let mut best: Option<Subject> = None;
        for command in simple_commands(line) {
            let words: Vec<&str> = command.words.iter().map(String::as_str).collect();
            let Some(subject) = self.words(&words) else {
                continue;
            };
            let better = best.as_ref().is_none_or(|best| {
                subject.rank > best.rank || (subject.rank == best.rank && !command.secondary)
            });
            if better {
                best = Some(subject);
            }
        }
        best
    }

    /// Peels one wrapper after the other. A loop, as a line may hold any number of them.
    fn words(&mut self, words: &[&str]) -> Option<Subject> {
        let mut rest = words;
        let mut peeled = None;
        loop {
            let leads = |word: &&&str| PREFIXES.contains(*word) || is_assignment(word);
            rest = &rest[rest.iter().take_while(leads).count()..];
            let Some(&program) = rest.first() else {
                return peeled.map(|wrapper| Subject::new(Rank::Modest, wrapper));
            };
            if HEADERS.contains(&program) {
                return None;
            }
            let kind = program_kind(program);
            let remover = tables::MARK_REMOVERS.iter().find(|name| **name == kind);
            self.mark_remover = self.mark_remover.or(remover.copied());
            let Some(wrapper) = program::wrapper_of(kind, rest) else {
                return self.program(rest, kind);
            };
            peeled = Some(program);
            match self.peel(wrapper, rest, kind == "env") {
                program::Inner::At(index) => rest = rest.get(index..).unwrap_or_default(),
                program::Inner::Is(subject) => {
                    return subject.or_else(|| Some(Subject::new(Rank::Modest, program)));
                }
            }
        }
    }

    /// What `read` finds one level deeper.
    fn deeper(&mut self, read: impl FnOnce(&mut Self) -> Option<Subject>) -> Option<Subject> {
        if self.depth == DEPTH_MAX {
            return None;
        }
        self.depth += 1;
        let found = read(self);
        self.depth -= 1;
        found
    }

    fn deeper_line(&mut self, line: Option<&&str>) -> Option<Subject> {
        self.deeper(|walk| walk.line(line?))
    }

    /// The subject of a command that is no wrapper; `words` is not empty.
    fn program(&mut self, words: &[&str], kind: &str) -> Option<Subject> {
        let program = words[0];
        if kind == "eval" {
            return self.deeper_line(Some(&words[1..].join(" ").as_str()));
        }
        if kind == "java" || kind == "javaw" {
            return Some(program::of_java(words));
        }
        if tables::has(tables::SHELLS, kind) {
            return Some(self.shell(words));
        }
        if let Some(known) =
            tables::INTERPRETERS.iter().find(|known| tables::has(known.names, kind))
        {
            return Some(program::of_interpreter(known, words));
        }
        if program.is_empty() {
            return None;
        }
        let named = program::named_file(words);
        let rank = program::minor_rank(base_name(program));
        Some(match (rank, named) {
            (Some(rank), named) => Subject::new(rank, named.unwrap_or(program)),
            (None, Some(file)) => Subject::run(file),
            (None, None) => Subject::new(Rank::Program, program),
        })
    }
}
