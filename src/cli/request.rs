//! A command that is about to be done: asking the daemon about its target, and saying what becomes
//! of each item of it.
use super::client::{Client, Need};
use super::output::{Done, Failure, error, no_such, print, print_outcomes, report};
use crate::service::selector::Selector;
use crate::wire::{Reply, Request, code};
use clap::ArgMatches;
use std::collections::HashSet;
use std::hash::Hash;

/// What stands on stderr where there is nothing to list: an empty answer might be a fault.
pub(super) const NO_SERVICES: &str = "no services (try 'opm start COMMAND')";

/// What was found, and the worst exit code.
pub(super) type Found<T> = (Vec<T>, u8);

#[derive(Debug)]
pub(crate) struct Call {
    pub(super) matches: ArgMatches,
    pub(super) client: Client,
}

impl Call {
    pub(super) fn text(&self, name: &str) -> &str {
        self.matches.get_one::<String>(name).map_or("", String::as_str)
    }

    /// The words that say which services are meant, as one list; none of them: all.
    pub(super) fn target(&self) -> String {
        let words = self.matches.get_many::<String>("target").into_iter().flatten();
        let words: Vec<&str> = words.map(String::as_str).collect();
        if words.is_empty() { "all".to_owned() } else { words.join(",") }
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        self.matches.get_flag(name)
    }

    /// The same of a switch that not every command has.
    pub(super) fn has(&self, name: &str) -> bool {
        self.matches.try_get_one::<bool>(name).ok().flatten().is_some_and(|is| *is)
    }

    pub(super) fn json(&self) -> bool {
        wants_json(&self.matches)
    }
}

pub(super) fn wants_json(matches: &ArgMatches) -> bool {
    let format = matches.get_one::<String>("format");
    matches.get_flag("json") || format.is_some_and(|format| format == "json")
}

/// A request that ends with outcomes. Without a record every name is unknown, and `all` is none.
pub(super) fn act(call: &Call, request: impl FnOnce(String) -> Request) -> Done {
    act_on(call, call.target(), request)
}

/// The same of a target that this command has found itself.
pub(super) fn act_on(call: &Call, target: String, request: impl FnOnce(String) -> Request) -> Done {
    let parsed = Selector::parse(&target).map_err(Failure::usage)?;
    let request = request(target);
    let is_flush = matches!(request, Request::Flush { .. });
    match call.client.request(Need::Record, &request)? {
        Some(Reply::Outcomes { outcomes, summary: None }) if outcomes.is_empty() => {}
        Some(reply) => return outcomes(&reply),
        None => {
            let unknown = parsed.parts().iter().filter(|part| !part.is_all());
            let codes = unknown.map(|part| report(&no_such(part.text())));
            if let Some(code) = codes.max() {
                return Ok(code);
            }
        }
    }
    error(NO_SERVICES);
    Ok(if call.client.is_pm2 && !is_flush { code::FAILED } else { code::DONE })
}

/// What `request` asks for; none as in [`Client::request`].
pub(super) fn ask<T: TryFrom<Reply, Error = Reply>>(
    client: &Client,
    need: Need,
    request: &Request,
) -> Result<Option<T>, Failure> {
    let reply = client.request(need, request)?.map(T::try_from);
    reply.transpose().map_err(|other| instead(&other))
}

/// Asks about each item of `target`, so that one that names nothing hides no other. `key`: what
/// tells one that was found from others. Says nothing: what was found, and why items have nothing.
pub(super) fn gather<K: Eq + Hash, T>(
    client: &Client,
    target: &str,
    need: Need,
    request: impl Fn(String) -> Request,
    key: impl Fn(&T) -> K,
) -> Result<(Vec<T>, Vec<Failure>), Failure>
where
    Vec<T>: TryFrom<Reply, Error = Reply>,
{
    let parsed = Selector::parse(target).map_err(Failure::usage)?;
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    for part in parsed.parts() {
        match ask::<Vec<T>>(client, need, &request(part.text().to_owned())) {
            Ok(Some(items)) => {
                found.extend(items.into_iter().filter(|item| seen.insert(key(item))));
            }
            Ok(None) if part.is_all() => {}
            Ok(None) => missing.push(no_such(part.text())),
            Err(failure) if failure.code == code::NO_SUCH => missing.push(failure),
            Err(failure) => return Err(failure),
        }
    }
    Ok((found, missing))
}

/// The same of a command's own target, and says why items have nothing.
pub(super) fn collect<K: Eq + Hash, T>(
    call: &Call,
    need: Need,
    request: impl Fn(String) -> Request,
    key: impl Fn(&T) -> K,
) -> Result<Found<T>, Failure>
where
    Vec<T>: TryFrom<Reply, Error = Reply>,
{
    let (found, missing) = gather(&call.client, &call.target(), need, request, key)?;
    let worst = missing.iter().map(report).max().unwrap_or(code::DONE);
    // Nothing at all is an error without a document, not an empty one.
    if worst != code::DONE && found.is_empty() {
        return Err(Failure::new(worst, ""));
    }
    if found.is_empty() {
        error(NO_SERVICES);
    }
    Ok((found, worst))
}

pub(super) fn outcomes(reply: &Reply) -> Done {
    let Reply::Outcomes { outcomes, summary } = reply else {
        return Err(strange());
    };
    let worst = print_outcomes(outcomes)?;
    if let Some(summary) = summary {
        print(summary)?;
    }
    Ok(worst)
}

/// A reply of another kind than the request's own: outcomes say what is wrong with a target.
pub(super) fn instead(reply: &Reply) -> Failure {
    outcomes(reply).map_or_else(|failure| failure, |code| Failure::new(code, ""))
}

pub(super) fn strange() -> Failure {
    Failure::unreachable("daemon: it answered something else (try 'opm daemon upgrade')")
}
