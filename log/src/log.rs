//! The log: a folder of topics, with one writing process and any number of readers.
//!
//! | path | what |
//! | --- | --- |
//! | `LOCK` | held by the writing process; holds its id |
//! | `topics/NAME/topic.json` | a topic's options |
//! | `topics/NAME/PARTITION/` | its segments |
//! | `transactions/ID/` | epochs that are not committed yet |

use crate::compaction::compact;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::options::{LogOptions, TopicOptions};
use crate::partition::Partition;
use crate::recovery::Recovery;
use crate::topic::{self, Topic, check_name};
use crate::transaction::{TopicSource, Transactional, TransactionalInfo, Transactions};
use crate::verify::{Verification, verify_all};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;
use std::sync::Arc;

/// An open log. Cheap to clone, usable from any thread.
///
/// The lock of a log that is open for writing is let go of when the last clone, and the last topic, reader and transactional handle
/// from it, is dropped.
#[derive(Clone, Debug)]
pub struct Log {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    topics: Arc<Topics>,
    /// `None`: the log is open read-only.
    transactions: Option<Transactions>,
    recovery: Recovery,
}

/// The topics of an open log.
#[derive(Debug)]
struct Topics {
    environment: Arc<Environment>,
    open: RwLock<BTreeMap<String, Topic>>,
}

impl Topics {
    /// In another process than the writer's: looks for topics that are new.
    fn find(&self) -> Result<()> {
        if !self.environment.is_read_only() {
            return Ok(());
        }
        let mut topics = self.open.write();
        for name in topic::list(&self.environment)? {
            if let Entry::Vacant(vacant) = topics.entry(name) {
                let topic = Topic::open(&self.environment, vacant.key(), &mut Recovery::default())?;
                vacant.insert(topic);
            }
        }
        Ok(())
    }
}

impl TopicSource for Topics {
    fn topic(&self, name: &str) -> Result<Topic> {
        if let Some(topic) = self.open.read().get(name) {
            return Ok(topic.clone());
        }
        self.find()?;
        let topics = self.open.read();
        topics.get(name).cloned().ok_or_else(|| Error::UnknownTopic { topic: name.to_owned() })
    }
}

impl Log {
    /// Opens (or creates) the log in a folder, for reading and writing, and repairs what a crash has left. Costs reading the last segment of each
    /// partition.
    ///
    /// # Errors
    /// [`Error::Locked`] if another process has it open for writing; [`Error::Corrupt`] if records are damaged.
    pub fn open(directory: impl AsRef<Path>, options: LogOptions) -> Result<Log> {
        let environment = Arc::new(Environment::of_writer(directory.as_ref(), options)?);
        let disk = &environment.disk;
        for folder in [environment.topics(), environment.transactions()] {
            disk.create_dir_all(&folder).map_err(|e| Error::io("making", &folder, e))?;
        }
        for folder in [&*environment.directory, parent(&environment.directory)] {
            disk.sync_dir(folder).map_err(|e| Error::io("syncing", folder, e))?;
        }
        let mut recovery = Recovery::default();
        let mut topics = BTreeMap::new();
        for name in topic::list(&environment)? {
            let topic = Topic::open(&environment, &name, &mut recovery)?;
            topics.insert(name, topic);
        }
        let topics = Arc::new(Topics { environment: Arc::clone(&environment), open: RwLock::new(topics) });
        let transactions = Transactions::open(environment, &|name| topics.topic(name), &mut recovery)?;
        Ok(Log { inner: Arc::new(Inner { topics, transactions: Some(transactions), recovery }) })
    }

    /// Opens the log in a folder for reading only, beside the process that writes to it, if there is one. Sees what that process appends, but
    /// not before looking: see [`Reader::wake_with`](crate::Reader::wake_with).
    pub fn open_read_only(directory: impl AsRef<Path>, options: LogOptions) -> Result<Log> {
        let environment = Arc::new(Environment::of_reader(directory.as_ref(), options));
        let topics = Arc::new(Topics { environment, open: RwLock::default() });
        topics.find()?;
        Ok(Log { inner: Arc::new(Inner { topics, transactions: None, recovery: Recovery::default() }) })
    }

    /// What opening it had to repair.
    pub fn recovery(&self) -> &Recovery {
        &self.inner.recovery
    }

    /// Creates a topic, durably.
    ///
    /// # Errors
    /// [`Error::TopicExists`] if there is one of that name, whatever its options.
    pub fn create_topic(&self, name: &str, options: TopicOptions) -> Result<Topic> {
        let environment = &self.inner.topics.environment;
        environment.check_writer("creating a topic")?;
        check_name(name)?;
        let mut topics = self.inner.topics.open.write();
        if topics.contains_key(name) {
            return Err(Error::TopicExists { topic: name.to_owned() });
        }
        topic::create(environment, name, &options)?;
        let topic = Topic::open(environment, name, &mut Recovery::default())?;
        topics.insert(name.to_owned(), topic.clone());
        Ok(topic)
    }

    /// The topic of that name; created if there is none.
    ///
    /// # Errors
    /// [`Error::InvalidOptions`] if there is one with another number of partitions. Its other options stay as they are.
    pub fn ensure_topic(&self, name: &str, options: TopicOptions) -> Result<Topic> {
        let found = match self.create_topic(name, options.clone()) {
            Err(Error::TopicExists { .. }) => self.topic(name)?,
            created => return created,
        };
        if found.partitions() != options.partitions {
            let problem = format!("it has {} partitions, not {}", found.partitions(), options.partitions);
            return Err(Error::InvalidOptions { topic: name.to_owned(), problem });
        }
        Ok(found)
    }

    /// The topic of that name.
    pub fn topic(&self, name: &str) -> Result<Topic> {
        self.inner.topics.topic(name)
    }

    /// Removes a topic and all of its records, durably. Whoever reads it meanwhile gets errors, and so does whoever writes it: nobody should. Does
    /// nothing if there is none.
    ///
    /// # Errors
    /// It cannot be removed; then it may be gone at the next start.
    pub fn delete_topic(&self, name: &str) -> Result<()> {
        let environment = &self.inner.topics.environment;
        environment.check_writer("removing a topic")?;
        check_name(name)?;
        let mut topics = self.inner.topics.open.write();
        topics.remove(name);
        topic::delete(environment, name)
    }

    /// All topics, by name.
    pub fn topics(&self) -> Result<Vec<Topic>> {
        self.inner.topics.find()?;
        Ok(self.inner.topics.open.read().values().cloned().collect())
    }

    fn transactions(&self, attempt: &'static str) -> Result<&Transactions> {
        self.inner.transactions.as_ref().ok_or(Error::ReadOnly { attempt })
    }

    /// Takes a transactional id over, for a generation from 1 on, and fences all lower ones: their handles can neither append nor prepare nor commit. Epochs that
    /// they had open are thrown away, those prepared are kept: see [`Transactional::prepared`]. The same generation again gives
    /// another handle to the same.
    ///
    /// # Errors
    /// [`Error::Fenced`] if a higher generation holds it.
    pub fn transactional(&self, id: &str, generation: u64) -> Result<Transactional> {
        let topics = Arc::clone(&self.inner.topics);
        self.transactions("opening a transactional id")?.take(id, generation, topics)
    }

    /// All transactional ids that were ever opened, with their prepared epochs.
    pub fn transactional_ids(&self) -> Result<Vec<TransactionalInfo>> {
        Ok(self.transactions("listing transactional ids")?.list())
    }

    /// Makes everything that has been appended so far durable.
    pub fn sync(&self) -> Result<()> {
        self.topics()?.iter().try_for_each(Topic::sync)
    }

    /// Reads everything through, and reports what is damaged; also while the log is in use. Costs reading the whole log.
    ///
    /// # Errors
    /// As [`verify`](crate::verify), which is for a log that cannot be opened.
    pub fn verify(&self) -> Result<Verification> {
        verify_all(&self.inner.topics.environment)
    }

    /// Does what time asks for: syncs what is due, removes what retention no longer keeps, compacts. To be called now and then, say every
    /// second, from any thread; the log has no thread of its own. In a log opened read-only it looks for new records.
    ///
    /// `now_ms` is the time in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// The first, after everything else has been done that could be.
    pub fn maintain(&self, now_ms: i64) -> Result<()> {
        let mut outcome = Ok(());
        for topic in self.topics()? {
            for partition in topic.all() {
                let done = match self.inner.transactions {
                    Some(_) => maintain(partition, now_ms),
                    None => partition.refresh().map(|_| ()),
                };
                outcome = outcome.and(done);
            }
        }
        match &self.inner.transactions {
            Some(transactions) => outcome.and(transactions.maintain(&|name| self.topic(name))),
            None => outcome,
        }
    }
}

fn maintain(partition: &Partition, now_ms: i64) -> Result<()> {
    partition.sync_ahead(now_ms)?;
    partition.roll_ahead()?;
    partition.retain(now_ms)?;
    match &partition.options.compaction {
        Some(compaction) => compact(partition, compaction, now_ms).map(|_| ()),
        None => Ok(()),
    }
}

/// The folder that the log's own name is in.
fn parent(directory: &Path) -> &Path {
    directory.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
