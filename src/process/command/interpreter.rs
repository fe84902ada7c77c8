//! Programs that run a script: which of their words that script is.
use super::tables::{self, Interpreter};
use super::{Rank, Subject, has_extension, is_jar, is_script, says_something};

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
            _ if tables::JAVA_VALUES.contains(&word) => at += 2,
            _ if word.starts_with(['-', '@']) || !says_something(word) => at += 1,
            _ => {
                let rank = if jar || is_jar(word) { Rank::Jar } else { Rank::Script };
                return Subject::new(rank, word);
            }
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
            let verb = at == 2 && known.verbs.contains(&word);
            if !verb && is_run(known, word) {
                let rank = if is_jar(word) { Rank::Jar } else { Rank::Script };
                return Subject::new(rank, word);
            }
        } else if word == "--" {
            options_end = true;
        } else if let Some(long) = word.strip_prefix("--") {
            if matches!(long, "eval" | "print") {
                return itself();
            }
            at += usize::from(known.long.contains(&long));
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
    let runs = is_script(word) || has_extension(word, tables::PROGRAM_EXTENSIONS);
    says_something(word)
        && (runs || !known.by_extension)
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
    if letters.is_empty() {
        // A lone dash: the script comes from standard input.
        return Short::Code;
    }
    for (i, letter) in letters.char_indices() {
        let rest = &letters[i + letter.len_utf8()..];
        if known.code.contains(letter) {
            return Short::Code;
        }
        if known.subject.contains(letter) {
            return Short::Subject(rest);
        }
        if known.values.contains(letter) {
            return if rest.is_empty() { Short::Value } else { Short::Flags };
        }
        if known.glued.contains(letter) {
            return Short::Flags;
        }
    }
    Short::Flags
}
