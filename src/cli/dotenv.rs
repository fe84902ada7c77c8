//! The `.env` file of a working directory. Pure: text in, variables out. Nothing is expanded
//! or run: a value with `$` in it stays as it is.
use crate::service::spec::{Env, is_variable_name};

/// Variables in their order, and the numbers of the lines that make no sense.
pub(crate) fn parse(text: &str) -> (Env, Vec<usize>) {
    let mut env = Env::new();
    let mut bad = Vec::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = text.lines().enumerate();
    while let Some((n, line)) = lines.next() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let assignment = line.strip_prefix("export ").unwrap_or(line).trim_start();
        let Some((name, rest)) = assignment.split_once('=') else {
            bad.push(n + 1);
            continue;
        };
        let (name, mut rest) = (name.trim_end(), rest.trim_start().to_owned());
        // A quoted value may hold newlines: take lines until the quote closes.
        let mut value = value_of(&rest);
        let quote = rest.chars().next().unwrap_or_default();
        while value.is_none() {
            let Some((_, more)) = lines.next() else { break };
            rest.push('\n');
            rest.push_str(more);
            // Read anew only where it may close: a quote that never does reaches to the end.
            if more.contains(quote) {
                value = value_of(&rest);
            }
        }
        match value {
            Some(value) if is_plain_name(name) => env.push((name.to_owned(), value)),
            _ => bad.push(n + 1),
        }
    }
    (env, bad)
}

fn is_plain_name(name: &str) -> bool {
    is_variable_name(name) && !name.contains(char::is_whitespace)
}

/// The value that `rest` begins with; `None` while its quote is open. What follows the
/// closing quote is a comment.
fn value_of(rest: &str) -> Option<String> {
    match rest.chars().next() {
        Some('\'') => rest[1..].split_once('\'').map(|(value, _)| value.to_owned()),
        Some('"') => double_quoted(&rest[1..]),
        _ => {
            let comment = [" #", "\t#"].iter().filter_map(|mark| rest.find(mark)).min();
            let end = if rest.starts_with('#') { Some(0) } else { comment };
            Some(rest[..end.unwrap_or(rest.len())].trim_end().to_owned())
        }
    }
}

fn double_quoted(rest: &str) -> Option<String> {
    let mut value = String::new();
    let mut chars = rest.chars();
    loop {
        match chars.next()? {
            '"' => return Some(value),
            '\\' => match chars.next()? {
                'n' => value.push('\n'),
                't' => value.push('\t'),
                'r' => value.push('\r'),
                c @ ('"' | '\\' | '$' | '`') => value.push(c),
                c => value.extend(['\\', c]),
            },
            c => value.push(c),
        }
    }
}

#[cfg(test)]
#[path = "../../tests/inner/cli_dotenv.rs"]
mod tests;
