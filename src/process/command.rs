//! What a command line is about: `java -jar App.jar` is about `App.jar`, `sh -c 'cd /srv && node
//! server.js'` about `server.js`.
//!
//! Text only, and only a hint: it names services and finds look-alikes. It must never decide
//! that something is dead, nor that it may be killed. Total: any text has an answer.
#[cfg(test)]
mod fuzz;
mod interpreter;
mod lexer;
mod tables;
#[cfg(test)]
mod tests;
mod wrapper;

use interpreter::{of_interpreter, of_java};
use wrapper::{Inner, peel, wrapper_of};

/// Lines within lines (`sh -c "sh -c …"`) are followed this deep: the text is a stranger's, and
/// the stack is ours.
const DEPTH_MAX: usize = 8;

/// The longest name that [`default_name`] makes, in characters.
const NAME_CHARS_MAX: usize = 64;

/// What a command is about, and how well that names it. The ranks are the order of preference
/// between the commands of one line.
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
}

/// What `command` is about, as a base name: a jar first, then a script, then the program, seen
/// through wrappers (`env`, `nice`, `sudo`) and shells. Of several commands in a line the last of
/// the best kind counts, as what comes before prepares it; in a pipe it is the first.
///
/// Empty only if the command is. A shell's own name is the answer only if the line is nothing
/// but a shell.
pub fn extract_search_pattern_from_command(command: &str) -> String {
    if let Some(subject) = of_line(command, 0) {
        return subject.text;
    }
    // Nothing but operators, assignments or empty words: the text itself is all there is.
    let first = command.split_whitespace().next().unwrap_or_default();
    base_name(first).to_owned()
}

/// The same for words that are already split, as exec and `/proc/PID/cmdline` have them.
pub fn pattern_of_argv(argv: &[impl AsRef<str>]) -> String {
    let words: Vec<&str> = argv.iter().map(AsRef::as_ref).collect();
    let first = || words.iter().find(|word| !word.is_empty()).copied().unwrap_or_default();
    of_words(&words, 0).map_or_else(|| base_name(first()).to_owned(), |subject| subject.text)
}

/// The program that takes marks off what it starts ([`super::mark`]), if `argv` runs one: in a PAM
/// session of its own, limits are what PAM says and the environment is new.
pub fn mark_remover(argv: &[impl AsRef<str>]) -> Option<&'static str> {
    let words: Vec<&str> = argv.iter().map(AsRef::as_ref).collect();
    remover_of(&words, 0)
}

fn remover_of(words: &[&str], depth: usize) -> Option<&'static str> {
    let mut rest = words;
    loop {
        let leads = |word: &&str| tables::PREFIXES.contains(word) || is_assignment(word);
        rest = rest.get(rest.iter().take_while(|word| leads(word)).count()..)?;
        let kind = program_kind(rest.first()?);
        if let Some(name) = tables::MARK_REMOVERS.iter().find(|name| **name == kind) {
            return Some(name);
        }
        if tables::SHELLS.contains(&kind) {
            let is_line = rest.get(1)?.strip_prefix('-').is_some_and(|flags| flags.ends_with('c'));
            let line = rest.get(2).filter(|_| is_line && depth < DEPTH_MAX)?;
            return lexer::simple_commands(line).iter().find_map(|command| {
                let words: Vec<&str> = command.words.iter().map(String::as_str).collect();
                remover_of(&words, depth + 1)
            });
        }
        let wrapper = wrapper_of(kind, rest)?;
        match peel(wrapper, rest, kind == "env", DEPTH_MAX) {
            Inner::At(index) => rest = rest.get(index..)?,
            Inner::Is(_) => return None,
        }
    }
}

/// A valid name for a service that runs `argv`: the pattern without its extension.
pub fn default_name(argv: &[impl AsRef<str>]) -> String {
    let pattern = pattern_of_argv(argv);
    let known = |extension: &str| {
        is_one_of(extension, tables::SCRIPT_EXTENSIONS)
            || is_one_of(extension, tables::PROGRAM_EXTENSIONS)
    };
    let stem = match pattern.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() && known(extension) => stem,
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

/// Whether one of the arguments has `pattern` as its base name. Never part of a name: `app.js` is
/// not mentioned by `myapp.js`, which was how strangers got killed.
pub fn mentions(cmdline: &[impl AsRef<str>], pattern: &str) -> bool {
    !pattern.is_empty() && cmdline.iter().any(|word| base_name(word.as_ref()) == pattern)
}

/// The last component of a path, without trailing slashes; of `/` it is `/`.
fn base_name(word: &str) -> &str {
    let trimmed = word.trim_end_matches('/');
    if trimmed.is_empty() {
        return if word.is_empty() { "" } else { "/" };
    }
    trimmed.rsplit('/').next().unwrap_or(trimmed)
}

fn is_one_of(extension: &str, list: &[&str]) -> bool {
    list.iter().any(|known| known.eq_ignore_ascii_case(extension))
}

fn has_extension(word: &str, list: &[&str]) -> bool {
    let split = base_name(word).rsplit_once('.');
    split.is_some_and(|(stem, extension)| !stem.is_empty() && is_one_of(extension, list))
}

fn is_jar(word: &str) -> bool {
    has_extension(word, &["jar", "war"])
}

fn is_script(word: &str) -> bool {
    has_extension(word, tables::SCRIPT_EXTENSIONS)
}

/// `.` and the like name nothing, so the program before them says more.
fn says_something(word: &str) -> bool {
    !matches!(base_name(word), "" | "." | ".." | "/" | "-")
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    })
}

/// `python` for `python3.11`; `-bash`, a login shell, is `bash`.
fn program_kind(word: &str) -> &str {
    let name = base_name(word);
    let name = name.strip_prefix('-').unwrap_or(name);
    let bare = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    if bare.is_empty() { name } else { bare.trim_end_matches('-') }
}

fn of_line(line: &str, depth: usize) -> Option<Subject> {
    let mut best: Option<Subject> = None;
    for command in lexer::simple_commands(line) {
        let words: Vec<&str> = command.words.iter().map(String::as_str).collect();
        let Some(subject) = of_words(&words, depth) else {
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
fn of_words(words: &[&str], depth: usize) -> Option<Subject> {
    let mut rest = words;
    let mut peeled = None;
    loop {
        let reserved = |word: &&&str| tables::PREFIXES.contains(*word);
        let first = rest.iter().take_while(|w| reserved(w) || is_assignment(w)).count();
        rest = &rest[first..];
        let Some(&program) = rest.first() else {
            return peeled.map(|wrapper| Subject::new(Rank::Modest, wrapper));
        };
        if tables::HEADERS.contains(&program) {
            return None;
        }
        let kind = program_kind(program);
        let Some(wrapper) = wrapper_of(kind, rest) else {
            return of_program(rest, kind, depth);
        };
        peeled = Some(program);
        match peel(wrapper, rest, kind == "env", depth) {
            Inner::At(index) => rest = rest.get(index..).unwrap_or_default(),
            Inner::Is(subject) => {
                return subject.or_else(|| Some(Subject::new(Rank::Modest, program)));
            }
        }
    }
}

fn deeper_line(line: Option<&&str>, depth: usize) -> Option<Subject> {
    if depth < DEPTH_MAX { of_line(line?, depth + 1) } else { None }
}

/// The subject of a command that is no wrapper; `words` is not empty.
fn of_program(words: &[&str], kind: &str, depth: usize) -> Option<Subject> {
    let program = words[0];
    if kind == "eval" {
        return deeper_line(Some(&words[1..].join(" ").as_str()), depth);
    }
    if kind == "java" || kind == "javaw" {
        return Some(of_java(words));
    }
    if tables::SHELLS.contains(&kind) {
        return Some(of_shell(words, depth));
    }
    let mut interpreters = tables::INTERPRETERS.iter();
    if let Some(known) = interpreters.find(|known| known.names.contains(&kind)) {
        return Some(of_interpreter(known, words));
    }
    if program.is_empty() {
        return None;
    }
    let named = named_file(words);
    let name = base_name(program);
    let minor = [(Rank::Silent, tables::SILENT), (Rank::Modest, tables::MODEST)];
    if let Some((rank, _)) = minor.iter().find(|(_, names)| names.contains(&name)) {
        return Some(Subject::new(*rank, named.map_or(program, |(_, word)| word)));
    }
    Some(named.map_or_else(
        || Subject::new(Rank::Program, program),
        |(rank, word)| Subject::new(rank, word),
    ))
}

/// The first jar, else the first script among the words of a program that we do not know.
fn named_file<'a>(words: &[&'a str]) -> Option<(Rank, &'a str)> {
    let mut script = None;
    let mut previous = "";
    for &word in words {
        let read_only = tables::CONFIG.contains(&previous);
        previous = word;
        if word.starts_with('-') || read_only {
            continue;
        }
        if is_jar(word) {
            return Some((Rank::Jar, word));
        }
        if script.is_none() && is_script(word) {
            script = Some((Rank::Script, word));
        }
    }
    script
}

fn of_shell(words: &[&str], depth: usize) -> Subject {
    let shell = || Subject::new(Rank::Shell, program_name(words[0]));
    let mut is_line = false;
    let mut at = 1;
    while let Some(&word) = words.get(at) {
        at += 1;
        if word == "--" || word == "-" {
            break;
        }
        if matches!(word, "--rcfile" | "--init-file") {
            at += 1;
        } else if let Some(flags) = word.strip_prefix(['-', '+']) {
            let long = word.starts_with("--");
            is_line |=
                (!long && word.starts_with('-') && flags.contains('c')) || word == "--command";
            // `-o pipefail`, also as `-euo pipefail`.
            at += usize::from(!long && flags.ends_with(['o', 'O']));
        } else {
            at -= 1;
            break;
        }
    }
    let rest = words.get(at..).unwrap_or_default();
    let Some((&first, arguments)) = rest.split_first() else {
        return shell();
    };
    if !is_line {
        let script = Some(first).filter(|script| says_something(script));
        return script.map_or_else(shell, |script| Subject::new(Rank::Script, script));
    }
    let found = deeper_line(Some(&first), depth);
    match found {
        // `sh -c 'exec "$@"' name node x.js`: the line is about its arguments.
        Some(found) if found.text.starts_with('$') && depth < DEPTH_MAX => {
            let passed =
                if found.text == "$0" { arguments } else { arguments.get(1..).unwrap_or(&[]) };
            of_words(passed, depth + 1).unwrap_or(found)
        }
        Some(found) => found,
        None => shell(),
    }
}

/// A login shell is `-bash` in its own words.
fn program_name(word: &str) -> &str {
    let name = base_name(word);
    name.strip_prefix('-').filter(|name| !name.is_empty()).unwrap_or(name)
}
