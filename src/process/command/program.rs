//! Programs that run something else: which of their words that is.
use super::tables::{self, Interpreter, Wrapper, has};
use super::*;
use crate::process::shell::BUILTINS;

pub(super) enum Inner {
    At(usize),
    /// It was in a line of its own.
    Is(Option<Subject>),
}

/// The wrapper that `words` begin with, if they do; `kind` is the first of them, bare.
pub(super) fn wrapper_of(kind: &str, words: &[&str]) -> Option<&'static Wrapper> {
    let verb = words.get(1).copied().unwrap_or_default();
    tables::WRAPPERS.iter().find(|wrapper| {
        has(wrapper.names, kind) && (wrapper.verbs.is_empty() || has(wrapper.verbs, verb))
    })
}

impl Walk {
    pub(super) fn peel(&mut self, wrapper: &Wrapper, words: &[&str], is_env: bool) -> Inner {
        let mut at = 1 + usize::from(!wrapper.verbs.is_empty());
        let mut skip = wrapper.skip;
        // `runuser web -c x`, but `runuser -u web x`: the user is given only once.
        let mut names_user = false;
        while let Some(&word) = words.get(at) {
            if word == "--" {
                // `runuser -u web -- x`: those that take a line have nothing to skip after it.
                return Inner::At(at + 1 + if wrapper.takes_line { 0 } else { skip });
            }
            if let Some(text) = is_env.then(|| split_string(word)).flatten() {
                // `env -S 'node -x' y`: the string is split, and what follows goes on from there.
                let (text, next) = match text {
                    "" => (words.get(at + 1).copied().unwrap_or_default(), at + 2),
                    glued => (glued, at + 1),
                };
                let lines = simple_commands(text);
                let split = lines.iter().flat_map(|simple| &simple.words).map(String::as_str);
                let inner: Vec<&str> = split.chain(words.iter().skip(next).copied()).collect();
                return Inner::Is(self.deeper(|walk| walk.words(&inner)));
            }
            if let Some(long) = word.strip_prefix("--") {
                if wrapper.takes_line && long == "command" {
                    return Inner::Is(self.deeper_line(words.get(at + 1)));
                }
                names_user |= long == "user";
                at += 1 + usize::from(has(wrapper.long, long));
            } else if let Some(cluster) = word.strip_prefix('-') {
                let takes_value = |c| wrapper.values.contains(c) || wrapper.takes_line && c == 'c';
                match cluster.find(takes_value).map(|i| &cluster[i..]) {
                    Some(option) if wrapper.takes_line && option.starts_with('c') => {
                        return Inner::Is(self.deeper_line(words.get(at + 1)));
                    }
                    // Without anything glued to it the value is the next word.
                    Some(option) => {
                        names_user |= option.starts_with('u');
                        at += 1 + usize::from(option.chars().nth(1).is_none());
                    }
                    None => at += 1,
                }
            } else if is_assignment(word) {
                at += 1;
            } else if skip > 0 && !(names_user && wrapper.takes_line) {
                skip -= 1;
                at += 1;
            } else {
                break;
            }
        }
        Inner::At(at)
    }

    pub(super) fn shell(&mut self, words: &[&str]) -> Subject {
        // A login shell is `-bash` in its own words.
        let name = base_name(words[0]);
        let name = name.strip_prefix('-').filter(|name| !name.is_empty()).unwrap_or(name);
        let shell = || Subject::new(Rank::Shell, name);
        let mut is_line = false;
        let mut at = 1;
        while let Some(&word) = words.get(at) {
            at += 1;
            if word == "--" || word == "-" {
                break;
            }
            if matches!(word, "--rcfile" | "--init-file") {
                at += 1;
            } else if word.starts_with("--") {
                is_line |= word == "--command";
            } else if let Some(flags) = word.strip_prefix(['-', '+']) {
                is_line |= word.starts_with('-') && flags.contains('c');
                // `-o pipefail`, also as `-euo pipefail`.
                at += usize::from(flags.ends_with(['o', 'O']));
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
        match self.deeper_line(Some(&first)) {
            // `sh -c 'exec "$@"' name node x.js`: the line is about its arguments.
            Some(found) if found.text.starts_with('$') => {
                let own = usize::from(found.text != "$0");
                let passed = arguments.get(own..).unwrap_or(&[]);
                self.deeper(|walk| walk.words(passed)).unwrap_or(found)
            }
            found => found.unwrap_or_else(shell),
        }
    }
}

/// What is glued to env's `-S` (maybe nothing), if the word is that option.
fn split_string(word: &str) -> Option<&str> {
    if let Some(long) = word.strip_prefix("--split-string") {
        return Some(long.strip_prefix('=').unwrap_or(long));
    }
    let (flags, text) = word.strip_prefix('-')?.split_once('S')?;
    flags.chars().all(|c| matches!(c, 'i' | '0' | 'v')).then_some(text)
}

/// The rank of a program that is not the subject beside another.
pub(super) fn minor_rank(name: &str) -> Option<Rank> {
    if BUILTINS.contains(&name) || has(tables::SILENT, name) {
        return Some(Rank::Silent);
    }
    has(tables::MODEST, name).then_some(Rank::Modest)
}

/// The first jar, else the first script among the words of a program that we do not know.
pub(super) fn named_file<'a>(words: &[&'a str]) -> Option<&'a str> {
    let names = |at: &usize| {
        let is_config = *at > 0 && has(tables::CONFIG, words[at - 1]);
        !words[*at].starts_with('-') && !is_config
    };
    let mut named = (0..words.len()).filter(names).map(|at| words[at]);
    named.clone().find(|word| is_jar(word)).or_else(|| named.find(|word| is_script(word)))
}

pub(super) fn of_java(words: &[&str]) -> Subject {
    let mut at = 1;
    let mut jar = false;
    while let Some(&word) = words.get(at) {
        let next = words.get(at + 1).filter(|next| says_something(next));
        match (word, next) {
            // Options may stand between `-jar` and the jar.
            ("-jar", _) => {
                jar = true;
                at += 1;
            }
            ("-m" | "--module", Some(main)) => return Subject::new(Rank::Script, main),
            _ if has(tables::JAVA_VALUES, word) => at += 2,
            _ if word.starts_with(['-', '@']) || !says_something(word) => at += 1,
            _ if jar => return Subject::new(Rank::Jar, word),
            _ => return Subject::run(word),
        }
    }
    Subject::new(Rank::Program, words[0])
}

pub(super) fn of_interpreter(known: &Interpreter, words: &[&str]) -> Subject {
    let itself = || Subject::new(Rank::Program, words[0]);
    let mut at = 1;
    let mut options_end = false;
    while let Some(&word) = words.get(at) {
        at += 1;
        if options_end || !word.starts_with('-') {
            let verb = at == 2 && has(known.verbs, word);
            if !verb && is_run(known, word) {
                return Subject::run(word);
            }
        } else if word == "--" {
            options_end = true;
        } else if let Some(long) = word.strip_prefix("--") {
            if matches!(long, "eval" | "print") {
                return itself();
            }
            at += usize::from(has(known.long, long));
        } else {
            match cluster(known, &word[1..]) {
                Short::Flags => {}
                Short::Code => return itself(),
                Short::Value => at += 1,
                Short::Subject(glued) => {
                    let value = if glued.is_empty() { words.get(at).copied() } else { Some(glued) };
                    let value = value.filter(|value| says_something(value));
                    return value.map_or_else(itself, |value| Subject::new(Rank::Script, value));
                }
            }
        }
    }
    itself()
}

/// Whether an interpreter would run `word`: a bare number is the value of some option.
fn is_run(known: &Interpreter, word: &str) -> bool {
    let has_extension = is_script(word) || is_file_of_program(word);
    says_something(word)
        && (has_extension || !known.by_extension)
        && !word.bytes().all(|b| b.is_ascii_digit())
}

/// What a cluster of short options asks for.
enum Short<'a> {
    Flags,
    /// The next word is a value.
    Value,
    Code,
    /// What runs: in the rest of the cluster, or the next word if that is empty.
    Subject(&'a str),
}

fn cluster<'a>(known: &Interpreter, letters: &'a str) -> Short<'a> {
    for (i, letter) in letters.char_indices() {
        let rest = &letters[i + letter.len_utf8()..];
        if known.code.contains(letter) {
            return Short::Code;
        }
        if known.subject.contains(letter) {
            return Short::Subject(rest);
        }
        if known.values.contains(letter) && rest.is_empty() {
            return Short::Value;
        }
        if known.values.contains(letter) || known.glued.contains(letter) {
            return Short::Flags;
        }
    }
    // A lone dash: the script comes from standard input.
    if letters.is_empty() { Short::Code } else { Short::Flags }
}
