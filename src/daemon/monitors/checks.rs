//! Readiness and health: each service is asked what its options say, or speaks for itself, and
//! what comes of it is advised.
//!
//! A check lives as long as its question is open for one incarnation. Nothing is asked of a
//! service whose options ask for nothing.
use super::advice::{Advice, Cx};
use super::attempt::{Answer, Attempt};
use super::channel::Channel;
use crate::daemon::service::Service;
use crate::daemon::timers::Timer;
use crate::process::Exit;
use crate::service::machine::{Generation, Phase, Time};
use crate::service::options::Checks;
use crate::service::probe::{Probe, Question, Sign};
use crate::service::signal::Signal;
use crate::service::spec::Id;
use crate::sys::token::Token;
use std::collections::BTreeMap;

/// From one question to the next, while a service is not ready: at first, and at most.
const AGAIN_MS: (u64, u64) = (50, 1_000);

/// What a service says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Ready,
    /// It lives.
    Alive,
    /// Something is wrong with it.
    Trouble,
    /// It needs so many more milliseconds.
    Extend(u64),
}

/// One open question.
#[derive(Debug)]
struct Check {
    generation: Generation,
    sign: Sign,
    options: Checks,
    began: Time,
    /// What it said may have been lost with the daemon before.
    may_be_missed: bool,
    /// When it has failed, if nothing comes; `MAX`: never.
    deadline: Time,
    /// When it is asked next, or the attempt that runs has taken too long.
    next: Time,
    asking: bool,
    attempt: Option<Attempt>,
    again: u64,
    failures: u32,
    was_well: bool,
    last: String,
}

#[derive(Debug, Default)]
pub(crate) struct Checker {
    open: BTreeMap<(Id, Question), Box<Check>>,
    /// Of those that live.
    channels: BTreeMap<Id, Channel>,
}

impl Checker {
    pub(super) fn follow(&mut self, cx: &mut Cx<'_>, of: &Service) {
        if of.machine.generation().is_none() {
            self.channels.remove(&of.id);
        }
        let options = &of.definition.spec.checks;
        let phase = match of.machine.phase() {
            Phase::Up { ready, since, .. } => Some((*ready, *since)),
            _ => None,
        };
        for question in [Question::Ready, Question::Health] {
            let sign = match (question, phase) {
                (Question::Ready, Some((false, _))) => Some(&options.ready),
                (Question::Health, Some((true, _))) => options.health.as_ref().map(|it| &it.0),
                _ => None,
            };
            let key = (of.id, question);
            let Some((sign, generation)) = sign.zip(of.machine.generation()) else {
                self.close(cx, key);
                continue;
            };
            if *sign == Sign::Exec {
                cx.advice.push((of.id, generation, Advice::Ready));
            } else if self.open.get(&key).is_none_or(|check| check.generation != generation) {
                self.close(cx, key);
                let is_seen_late = phase.is_some_and(|(_, since)| since < cx.now);
                let check = Check::new(question, (generation, sign), options, cx.now);
                let may_be_missed = is_seen_late && !matches!(sign, Sign::Probe(_));
                self.open.insert(key, Box::new(Check { may_be_missed, ..check }));
                self.look(cx, question, of.id);
            }
        }
    }

    /// The next incarnation of a service may say over this that it is ready.
    pub(crate) fn listen_to(&mut self, id: Id, channel: Option<Channel>) {
        match channel {
            Some(channel) => drop(self.channels.insert(id, channel)),
            None => drop(self.channels.remove(&id)),
        }
    }

    /// What a service is asked that has not answered well: the question, the probe, the answer.
    pub(crate) fn unanswered(&self, id: Id) -> Option<(Question, &Sign, &str)> {
        let open = |question| Some((question, self.open.get(&(id, question))?));
        let (question, check) = open(Question::Ready)
            .or_else(|| open(Question::Health).filter(|(_, check)| !check.last.is_empty()))?;
        let answer = check.last.split_once(": ").map_or("", |(_, answer)| answer);
        Some((question, &check.sign, answer))
    }

    fn close(&mut self, cx: &mut Cx<'_>, (id, question): (Id, Question)) {
        let Some(check) = self.open.remove(&(id, question)) else { return };
        cx.timers.set(Timer::Check(question, id), None);
        if check.asking && check.attempt.is_none() {
            cx.advice.push((id, check.generation, Advice::EndProbe(question)));
        }
    }

    /// A timer is due, or a descriptor ready, of this question to this service.
    pub(crate) fn look(&mut self, cx: &mut Cx<'_>, question: Question, id: Id) {
        let channel = self.channels.get_mut(&id).filter(|_| question == Question::Ready);
        // Whoever goes on talking is heard, and nothing comes of it.
        let heard = channel.map(|channel| channel.hear(cx, Token::Check(question, id)));
        let (is_told, is_more) = heard.unwrap_or_default();
        let timer = Timer::Check(question, id);
        if is_more {
            cx.timers.set(timer, Some(cx.now + 1));
        }
        let Some(check) = self.open.get_mut(&(id, question)) else { return };
        if is_told {
            check.answered(cx, question, id, Ok(()));
        }
        check.look(cx, question, id);
        let at = if is_more { cx.now + 1 } else { check.deadline.min(check.next) };
        cx.timers.set(timer, (at != Time::MAX).then_some(at));
    }

    /// What became of a line that was run for a question.
    pub(crate) fn probed(&mut self, cx: &mut Cx<'_>, question: Question, id: Id, exit: Exit) {
        let Some(check) = self.open.get_mut(&(id, question)).filter(|check| check.asking) else {
            return;
        };
        let answer = match exit {
            Exit::Code(0) => Ok(()),
            Exit::Code(code) => Err(format!("exit {code}")),
            Exit::Signal(number) => {
                let name = Signal::from_number(number).map_or(number.to_string(), Signal::name);
                Err(format!("killed by {name}"))
            }
            Exit::Unknown => Err("its end is not known".to_owned()),
        };
        check.answered(cx, question, id, answer);
        self.look(cx, question, id);
    }

    /// A service has said something of itself.
    pub(crate) fn tell(&mut self, cx: &mut Cx<'_>, id: Id, told: Told) {
        for question in [Question::Ready, Question::Health] {
            let Some(check) = self.open.get_mut(&(id, question)) else { continue };
            let is_told = check.sign == Sign::Notify;
            match (told, question) {
                (Told::Ready, Question::Ready) if is_told => {
                    check.answered(cx, question, id, Ok(()));
                }
                (Told::Alive, Question::Health) if is_told => check.silent_until(cx.now),
                (Told::Trouble, Question::Health) if is_told => {
                    check.fail(cx, id, "unhealthy: it says so itself".to_owned());
                }
                (Told::Extend(ms), Question::Ready) => {
                    check.deadline = check.deadline.max(cx.now.saturating_add(ms));
                }
                _ => {}
            }
            self.look(cx, question, id);
        }
    }
}

impl Check {
    fn new(
        question: Question,
        (generation, sign): (Generation, &Sign),
        options: &Checks,
        now: Time,
    ) -> Self {
        let is_asked = matches!(sign, Sign::Probe(_));
        let mut check = Self {
            generation,
            sign: sign.clone(),
            options: options.clone(),
            began: now,
            may_be_missed: false,
            deadline: Time::MAX,
            next: Time::MAX,
            asking: false,
            attempt: None,
            again: AGAIN_MS.0,
            failures: 0,
            was_well: false,
            last: String::new(),
        };
        match question {
            Question::Ready => {
                check.deadline = now.saturating_add(options.ready_timeout.ms);
                check.next = if is_asked { now } else { Time::MAX };
            }
            Question::Health if is_asked => {
                check.next = now.saturating_add(options.health_interval.ms);
            }
            Question::Health => check.silent_until(now),
        }
        check
    }

    /// It has spoken now: when it has been silent for too long.
    fn silent_until(&mut self, now: Time) {
        self.deadline = now.saturating_add(self.options.watchdog().ms);
    }

    fn look(&mut self, cx: &mut Cx<'_>, question: Question, id: Id) {
        let token = Token::Check(question, id);
        if let (Some(attempt), Some(registry)) = (&mut self.attempt, cx.registry)
            && let Some(answer) = attempt.look(registry, token)
        {
            self.answered(cx, question, id, answer);
        }
        if self.deadline <= cx.now {
            return self.out_of_time(cx, question, id);
        }
        if self.next > cx.now {
            return;
        }
        if self.asking {
            if self.attempt.is_none() {
                cx.advice.push((id, self.generation, Advice::EndProbe(question)));
            }
            let most = self.options.health_timeout;
            return self.answered(cx, question, id, Err(format!("no answer within {most}")));
        }
        self.asking = true;
        self.next = cx.now.saturating_add(self.options.health_timeout.ms.max(1));
        let begun = match (&self.sign, cx.registry) {
            (Sign::Probe(Probe::Command(line)), _) => {
                cx.advice.push((id, self.generation, Advice::Probe(question, line.clone())));
                return;
            }
            (Sign::Probe(probe), Some(registry)) => Attempt::begin(registry, token, probe),
            _ => return,
        };
        match begun {
            Ok(attempt) => self.attempt = Some(attempt),
            Err(why) => self.answered(cx, question, id, Err(why)),
        }
    }

    /// Takes up an answer, and says when to ask again.
    fn answered(&mut self, cx: &mut Cx<'_>, question: Question, id: Id, answer: Answer) {
        (self.asking, self.attempt) = (false, None);
        let counts = self.was_well || {
            let free = self.options.health_start_period.ms;
            question == Question::Health && self.began.saturating_add(free) <= cx.now
        };
        self.next = cx.now.saturating_add(match question {
            Question::Ready => self.again,
            Question::Health => self.options.health_interval.ms.max(1),
        });
        let mut say = |advice| cx.advice.push((id, self.generation, advice));
        let said = match (question, answer) {
            (Question::Ready, Ok(())) => {
                (self.deadline, self.next) = (Time::MAX, Time::MAX);
                say(Advice::Ready);
                String::new()
            }
            (Question::Health, Ok(())) => {
                (self.failures, self.was_well) = (0, true);
                String::new()
            }
            (Question::Ready, Err(why)) => {
                self.again = (self.again * 2).min(AGAIN_MS.1);
                format!("not ready: {why}")
            }
            (Question::Health, Err(why)) => {
                self.failures += u32::from(counts);
                let (failures, most) = (self.failures, self.options.health_retries.max(1));
                if failures >= most {
                    return self.fail(cx, id, format!("unhealthy: {why} ({failures} times)"));
                }
                format!("unhealthy: {why} ({failures} of {most})")
            }
        };
        if said != self.last {
            self.last.clone_from(&said);
            say(Advice::Status(said));
        }
    }

    fn out_of_time(&mut self, cx: &mut Cx<'_>, question: Question, id: Id) {
        if self.may_be_missed && question == Question::Ready {
            return self.answered(cx, question, id, Ok(()));
        }
        let why = match question {
            Question::Ready => {
                let most = self.options.ready_timeout;
                let last = self.last.strip_prefix("not ready").unwrap_or_default();
                format!("not ready within {most}{last}")
            }
            Question::Health => format!("unhealthy: no word for {}", self.options.watchdog()),
        };
        self.fail(cx, id, why);
    }

    fn fail(&mut self, cx: &mut Cx<'_>, id: Id, why: String) {
        (self.deadline, self.next) = (Time::MAX, Time::MAX);
        cx.advice.push((id, self.generation, Advice::Fail(why)));
    }
}
