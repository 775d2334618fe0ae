//! Processes that deploy, promote and roll back without end, and are killed by SIGKILL at points of a deployment that a seed draws.
//!
//! 1. A process opens the directory, deploys what was deployed, and goes on: a version that is on its way is promoted, one that is live is rolled back,
//!    and then there is the next. It says at which stage it is.
//! 2. The parent draws a stage and a time behind it, waits for that and kills. Clients go on asking whoever there is; each answer has to be right,
//!    and to reflect no less than those before it, deaths or not.
//! 3. At last the parent goes on itself, feeds the rest of the year, and compares all rows.

use crate::answers::{Answers, by_version};
use crate::clients::Clients;
use crate::flights::table::{grouped, heading, say, table};
use crate::site::Site;
use crate::story::report;
use rivermark::BoxError;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// The first argument of a process that is to be killed.
pub const CHILD: &str = "child";

const DEADLINE: Duration = Duration::from_secs(60);
/// What a version is live for, and what passes behind a roll back.
const FOR_A_WHILE: Duration = Duration::from_millis(100);
/// The last life feeds the rest at once.
const AT_ONCE: f64 = 1e9;
/// How long a life is about, for the pace at which departures are fed in it.
const LIFE_S: f64 = 1.0;
const DAY_S: f64 = 86_400.0;

/// Where in a deployment a process is killed.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Starting,
    Replaying,
    Promoting,
    Promoted,
    RollingBack,
    RolledBack,
}

impl Stage {
    const ALL: [Stage; 6] = [
        Stage::Starting,
        Stage::Replaying,
        Stage::Promoting,
        Stage::Promoted,
        Stage::RollingBack,
        Stage::RolledBack,
    ];

    fn name(self) -> &'static str {
        match self {
            Stage::Starting => "starting",
            Stage::Replaying => "replaying",
            Stage::Promoting => "promoting",
            Stage::Promoted => "promoted",
            Stage::RollingBack => "rolling back",
            Stage::RolledBack => "rolled back",
        }
    }

    /// How long it lasts, and somewhat longer: a process is killed within it.
    fn lasts(self) -> Duration {
        Duration::from_millis(match self {
            Stage::Starting => 500,
            Stage::Replaying => 400,
            Stage::Promoting | Stage::RollingBack => 50,
            Stage::Promoted | Stage::RolledBack => 120,
        })
    }
}

/// Numbers that look random, the same for the same seed (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit
    }

    /// Draws a stage, each once before any comes again.
    fn next_of(&mut self, left: &mut Vec<usize>) -> usize {
        if left.is_empty() {
            left.extend(0..Stage::ALL.len());
        }
        left.swap_remove(self.below(left.len() as u64) as usize)
    }
}

fn tell(line: &str) -> Result<(), BoxError> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// What a process does that is killed: it never ends by itself.
pub fn child(directory: &Path, days_per_second: f64, until: usize) -> Result<(), BoxError> {
    let reach = |stage: Stage| tell(&format!("stage {}", stage.name()));
    reach(Stage::Starting)?;
    let answers = Arc::new(Answers::compute()?);
    let mut site = Site::open(directory, &answers, 0)?;
    tell(&format!("address {}", site.address()))?;
    site.deploy_what_was()?;
    site.feed(days_per_second, until);
    loop {
        let (live, next) = site.live_and_next()?;
        if live == 1 {
            let next = match next {
                Some(next) => next,
                None => site.new_version()?,
            };
            reach(Stage::Replaying)?;
            site.deploy_again(next)?;
            let mut told = Ok(());
            site.promote(next, || told = reach(Stage::Promoting))?;
            told?;
            reach(Stage::Promoted)?;
            std::thread::sleep(FOR_A_WHILE);
        } else {
            reach(Stage::RollingBack)?;
            site.version(live)?.roll_back("to be seen")?;
            reach(Stage::RolledBack)?;
            std::thread::sleep(FOR_A_WHILE);
        }
    }
}

/// A process, and what it says.
struct Process {
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    fn start(directory: &Path, days_per_second: f64, until: usize) -> Result<Process, BoxError> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(CHILD)
            .arg(directory)
            .args([days_per_second.to_string(), until.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = BufReader::new(child.stdout.take().ok_or("the process has no output")?);
        let (send, lines) = channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        Ok(Process { child, lines })
    }

    /// Waits until it comes to a stage. Tells `address` where it serves.
    fn wait_for(&self, stage: Stage, mut address: impl FnMut(SocketAddr)) -> Result<(), BoxError> {
        let until = Instant::now() + DEADLINE;
        self.listen(until, |line| {
            if let Some(at) = line.strip_prefix("address ") {
                address(at.parse()?);
            }
            Ok(line.strip_prefix("stage ") == Some(stage.name()))
        })?
        .then_some(())
        .ok_or_else(|| format!("a process has not come to be {}", stage.name()).into())
    }

    /// Listens until `is_enough`, or until then. Answers whether it was enough.
    fn listen(
        &self,
        until: Instant,
        mut is_enough: impl FnMut(&str) -> Result<bool, BoxError>,
    ) -> Result<bool, BoxError> {
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) if is_enough(&line)? => return Ok(true),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return Ok(false),
                Err(RecvTimeoutError::Disconnected) => return Err("a process has ended by itself".into()),
            }
        }
    }

    fn kill(mut self) -> Result<(), BoxError> {
        // SIGKILL: no handler, no destructor, no flush.
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // If something went wrong: it would go on for ever.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Kills so many processes, and verifies what they have left.
pub fn run(directory: &Path, answers: &Arc<Answers>, kills: u64, seed: u64) -> Result<(), BoxError> {
    heading(&format!("5  {kills} processes killed by SIGKILL in the middle of deployments (seed {seed})"));
    let all = answers.departures.len();
    let history = all / 3;
    let mut site = Site::open(directory, answers, history)?;
    site.deploy_what_was()?;
    site.wait_until_read()?;
    drop(site);
    let clients = Clients::start(answers)?;
    let mut random = Random(seed);
    let (mut places, mut killed) = (Vec::new(), [0_u64; Stage::ALL.len()]);
    // What may be fed in each life: then there is something left for the last.
    let share = (all - history) / (kills as usize + 2);
    for life in 0..kills {
        let until = history + share * (life as usize + 1);
        let seconds = answers.departures[until].dep_ts - answers.departures[until - share].dep_ts;
        let process = Process::start(directory, seconds as f64 / DAY_S / LIFE_S, until)?;
        let place = random.next_of(&mut places);
        let stage = Stage::ALL[place];
        process.wait_for(stage, |address| clients.ask(Some(address)))?;
        let moment = Instant::now() + Duration::from_micros(random.below(stage.lasts().as_micros() as u64));
        process.listen(moment, |line| {
            if let Some(at) = line.strip_prefix("address ") {
                clients.ask(Some(at.parse()?));
            }
            Ok(false)
        })?;
        process.kill()?;
        clients.ask(None);
        killed[place] += 1;
    }

    let mut site = Site::open(directory, answers, 0)?;
    let switches = site.switches()?;
    site.deploy_what_was()?;
    clients.ask(Some(site.address()));
    site.feed(AT_ONCE, all * 9 / 10);
    let (live, next) = site.live_and_next()?;
    if live != 1 {
        site.version(live)?.roll_back("the last time")?;
    }
    let last = match next {
        Some(next) => next,
        None => site.new_version()?,
    };
    site.deploy_again(last)?;
    site.promote(last, || ())?;
    site.feed(AT_ONCE, all);
    site.wait_until_fed(all)?;
    site.wait_until_read()?;
    let asked = clients.stop()?;
    let verified = site.verify()?;

    let rows =
        Stage::ALL.iter().zip(killed).map(|(stage, count)| vec![stage.name().to_owned(), count.to_string()]);
    table(&["killed while", "processes"], &rows.collect::<Vec<_>>());
    println!();
    say(format!(
        "they came to {switches} switches, and the last process to {} more",
        site.switches()? - switches
    ));
    let parts = by_version(&verified.rows).len();
    say(format!(
        "{} rows, in {parts} parts of one version each: each there once, and right",
        grouped(verified.rows.len() as u64)
    ));
    println!();
    report(asked, false)
}
