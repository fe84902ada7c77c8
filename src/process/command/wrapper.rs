//! Programs that run another command: where in their words that command begins.
use super::tables::{self, Wrapper};
use super::{DEPTH_MAX, Subject, deeper_line, is_assignment, lexer, of_words};

/// The wrapper that `words` begin with, if they do; `kind` is the first of them, bare.
pub(super) fn wrapper_of(kind: &str, words: &[&str]) -> Option<&'static Wrapper> {
    let verb = words.get(1).copied().unwrap_or_default();
    tables::WRAPPERS.iter().find(|wrapper| {
        wrapper.names.contains(&kind) && (wrapper.verbs.is_empty() || wrapper.verbs.contains(&verb))
    })
}

/// Where the command inside of a wrapper is.
pub(super) enum Inner {
    At(usize),
    /// It was in a line of its own.
    Is(Option<Subject>),
}

pub(super) fn peel(wrapper: &Wrapper, words: &[&str], is_env: bool, depth: usize) -> Inner {
    let mut at = 1 + usize::from(!wrapper.verbs.is_empty());
    let mut skip = wrapper.skip;
    // `runuser web -c x`, but `runuser -u web x`: the user is given only once.
    let mut names_user = false;
    while let Some(&word) = words.get(at) {
        if word == "--" {
            // `runuser -u web -- x`: those that take a line have nothing to skip after it.
            return Inner::At(at + 1 + if wrapper.line.is_some() { 0 } else { skip });
        }
        if let Some(text) = is_env.then(|| split_string(word)).flatten() {
            // `env -S 'node -x' y`: the string is split, and what follows goes on from there.
            let (text, next) = match text {
                "" => (words.get(at + 1).copied().unwrap_or_default(), at + 2),
                glued => (glued, at + 1),
            };
            let lines = lexer::simple_commands(text);
            let split = lines.iter().flat_map(|simple| &simple.words).map(String::as_str);
            let inner: Vec<&str> = split.chain(words.iter().skip(next).copied()).collect();
            let deeper = depth < DEPTH_MAX;
            return Inner::Is(deeper.then(|| of_words(&inner, depth + 1)).flatten());
        }
        if let Some(long) = word.strip_prefix("--") {
            if wrapper.line.is_some() && long == "command" {
                return Inner::Is(deeper_line(words.get(at + 1), depth));
            }
            names_user |= long == "user";
            at += 1 + usize::from(wrapper.long.contains(&long));
        } else if let Some(cluster) = word.strip_prefix('-') {
            match cluster.find(|c| wrapper.values.contains(c) || wrapper.line == Some(c)) {
                Some(i) if wrapper.line.is_some() && cluster[i..].starts_with('c') => {
                    return Inner::Is(deeper_line(words.get(at + 1), depth));
                }
                // Without anything glued to it the value is the next word.
                Some(i) => {
                    names_user |= cluster[i..].starts_with('u');
                    at += 1 + usize::from(cluster[i..].chars().nth(1).is_none());
                }
                None => at += 1,
            }
        } else if is_assignment(word) {
            at += 1;
        } else if skip > 0 && !(names_user && wrapper.line.is_some()) {
            skip -= 1;
            at += 1;
        } else {
            break;
        }
    }
    Inner::At(at)
}

/// What is glued to env's `-S` (maybe nothing), if the word is that option.
fn split_string(word: &str) -> Option<&str> {
    if let Some(long) = word.strip_prefix("--split-string") {
        return Some(long.strip_prefix('=').unwrap_or(long));
    }
    let cluster = word.strip_prefix('-')?;
    let (flags, text) = cluster.split_once('S')?;
    flags.chars().all(|c| matches!(c, 'i' | '0' | 'v')).then_some(text)
}
