//! Ctrl-C while a job is followed: asks a person whether to leave the job alone or to end it. Used by exec, jobs and cp;
//! shows nothing but its question.

use std::fs::File;
use std::future::pending;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::pin::Pin;
use std::time::Duration;

use aot_proto::v1::CancelJobRequest;
use futures::{Stream, StreamExt, stream};
use rustix::fs::OFlags;
use rustix::termios::{QueueSelector, tcflush};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use tokio::signal::unix::{SignalKind, signal};

use super::connect::{Client, LOOK_UP, within};
use super::error::Error;

/// What a person wants after Ctrl-C.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// The job goes on, and is no longer looked at.
    Detach,
    /// The job ends, and is looked at until then.
    Cancel,
}

type Presses = Pin<Box<dyn Stream<Item = ()>>>;
type Answers = Pin<Box<dyn Stream<Item = String>>>;

/// Ctrl-C, as often as it comes, and what a person answers.
pub struct Interrupt {
    presses: Presses,
    /// Where answers come from; `None` when nobody can be asked.
    ask: Option<Box<dyn FnMut() -> io::Result<Answers>>>,
    cancelled: bool,
}

impl Interrupt {
    /// Of this process. Only when `interactive` is anyone asked; else Ctrl-C detaches.
    pub fn of_process(interactive: bool) -> Self {
        let presses: Presses = match signal(SignalKind::interrupt()) {
            Ok(signal) => Box::pin(stream::unfold(signal, |mut signal| async {
                signal.recv().await.map(|()| ((), signal))
            })),
            // Without a handler the signal ends the process, as it does everywhere.
            Err(_) => Box::pin(stream::pending()),
        };
        Self {
            presses,
            ask: interactive.then(|| Box::new(typed) as Box<_>),
            cancelled: false,
        }
    }

    /// The next Ctrl-C. Cancel safe.
    pub async fn pressed(&mut self) {
        if self.presses.next().await.is_none() {
            pending().await
        }
    }

    /// What is to be done about it. A second Ctrl-C, one after [`Wish::Cancel`], and one where nobody can be asked all
    /// mean to detach. There is no deadline: a person thinks, and the second Ctrl-C is the way out.
    ///
    /// # Errors
    /// When the question can't be written.
    pub async fn wish(&mut self, stderr: &mut dyn Write) -> io::Result<Wish> {
        let Some(ask) = self.ask.as_mut().filter(|_| !self.cancelled) else {
            return Ok(Wish::Detach);
        };
        let Ok(mut answers) = ask() else {
            return Ok(Wish::Detach); // the terminal is gone
        };
        loop {
            write!(stderr, "\ndetach (the job goes on) or cancel it? [d/c] ")?;
            stderr.flush()?;
            let answer = tokio::select! {
                _ = self.presses.next() => None,
                answer = answers.next() => answer,
            };
            match answer.as_deref().map(str::trim) {
                None => {
                    writeln!(stderr)?;
                    return Ok(Wish::Detach);
                }
                Some("d" | "D" | "detach") => return Ok(Wish::Detach),
                Some("c" | "C" | "cancel") => {
                    self.cancelled = true;
                    return Ok(Wish::Cancel);
                }
                Some(_) => {}
            }
        }
    }

    /// What Ctrl-C comes to for a job that is followed: asks, and has it cancelled when that is wanted; then says what to
    /// tell the operator. A job without an id yet, or nobody to ask through, is left alone.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when the job is to be left alone; when the question can't be written.
    pub async fn settle(
        &mut self,
        client: Option<&mut Client>,
        job: &str,
        goes_on: String,
        stderr: &mut dyn Write,
    ) -> Result<String, Error> {
        let wish = match (&client, job.is_empty()) {
            (Some(_), false) => self.wish(stderr).await?,
            _ => Wish::Detach,
        };
        let Some(client) = client.filter(|_| wish == Wish::Cancel) else {
            return Err(Error::Interrupted { goes_on });
        };
        Ok(match cancel(client, job, None).await {
            Ok(()) => "cancelling; Ctrl-C once more leaves it alone".to_owned(),
            Err(error) => format!("it could not be cancelled: {error}"),
        })
    }
}

/// Asks the master to end a job; who follows it sees how it ends. `grace` is the time between TERM and KILL.
///
/// # Errors
/// When the master does not take it.
pub async fn cancel(client: &mut Client, job: &str, grace: Option<Duration>) -> Result<(), Error> {
    let request = CancelJobRequest {
        job_id: job.to_owned(),
        grace_ms: grace.map_or(0, super::launch::millis),
    };
    let mut events = client
        .cancel_job(within(LOOK_UP, request))
        .await?
        .into_inner();
    // The first event says that it was taken.
    events.message().await?;
    Ok(())
}

/// Lines that are typed on the terminal from now on.
fn typed() -> io::Result<Answers> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    let flags = i32::try_from(flags).map_err(io::Error::other)?;
    let tty = File::options()
        .read(true)
        .custom_flags(flags)
        .open("/dev/tty")?;
    // What was typed before the question is no answer to it.
    tcflush(&tty, QueueSelector::IFlush)?;
    // It is no pipe, but epoll takes it as one: readable when a line was typed.
    Ok(lines_of(Receiver::from_file_unchecked(tty)?))
}

/// The lines of a file that does not block; a terminal gives one at a time.
fn lines_of(file: Receiver) -> Answers {
    Box::pin(stream::unfold(file, |mut file| async move {
        let mut line = [0; 256];
        match file.read(&mut line).await {
            Ok(0) | Err(_) => None,
            Ok(len) => Some((String::from_utf8_lossy(&line[..len]).into_owned(), file)),
        }
    }))
}

#[cfg(test)]
impl Interrupt {
    /// Presses at these times from now on, and these answers where somebody can be asked.
    pub fn scripted(presses_ms: &[u64], answers: Option<Vec<&'static str>>) -> Self {
        let start = tokio::time::Instant::now();
        let presses: Vec<Duration> = presses_ms
            .iter()
            .copied()
            .map(Duration::from_millis)
            .collect();
        let presses = stream::iter(presses).then(move |at| tokio::time::sleep_until(start + at));
        Self {
            presses: Box::pin(presses.chain(stream::pending())),
            ask: answers.map(|answers| {
                Box::new(move || {
                    let answers = answers.clone().into_iter().map(str::to_owned);
                    let answers: Answers = Box::pin(stream::iter(answers).chain(stream::pending()));
                    Ok(answers)
                }) as Box<_>
            }),
            cancelled: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn wish(presses_ms: &[u64], answers: Option<Vec<&'static str>>) -> (Wish, String) {
        let mut interrupt = Interrupt::scripted(presses_ms, answers);
        let mut shown = Vec::new();
        interrupt.pressed().await;
        let wish = interrupt.wish(&mut shown).await.expect("written");
        (wish, String::from_utf8(shown).expect("UTF-8"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_person_is_asked_until_the_answer_is_one() {
        for (answers, want, questions) in [
            (vec!["d\n"], Wish::Detach, 1),
            (vec!["c\n"], Wish::Cancel, 1),
            (vec!["\n", "what?\n", " C \n"], Wish::Cancel, 3),
        ] {
            let (wish, shown) = wish(&[5], Some(answers)).await;
            assert_eq!((wish, shown.matches("[d/c]").count()), (want, questions));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_ctrl_c_detaches() {
        assert_eq!(wish(&[5, 10], Some(vec![])).await.0, Wish::Detach);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_terminal_nobody_is_asked() {
        assert_eq!(wish(&[5], None).await, (Wish::Detach, String::new()));
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_cancel_ctrl_c_only_detaches() {
        let mut interrupt = Interrupt::scripted(&[5, 10], Some(vec!["c"]));
        let mut shown = Vec::new();
        for want in [Wish::Cancel, Wish::Detach] {
            interrupt.pressed().await;
            assert_eq!(interrupt.wish(&mut shown).await.expect("written"), want);
        }
        assert_eq!(String::from_utf8_lossy(&shown).matches("[d/c]").count(), 1);
    }

    #[tokio::test]
    async fn what_is_typed_is_read_line_by_line() {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&controller).expect("granted");
        unlockpt(&controller).expect("unlocked");
        let name = ptsname(&controller, Vec::new()).expect("a name");
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let tty = File::options()
            .read(true)
            .write(true)
            .custom_flags(flags.bits().try_into().expect("small"))
            .open(name.to_str().expect("UTF-8"))
            .expect("opened");
        let mut lines = lines_of(Receiver::from_file_unchecked(tty).expect("registered"));
        for line in ["first\n", "second\n"] {
            rustix::io::write(&controller, line.as_bytes()).expect("typed");
            assert_eq!(lines.next().await.as_deref(), Some(line));
        }
        drop(controller);
        assert_eq!(lines.next().await, None);
    }
}
