//! The log: a folder of topics, with one writing process and any number of readers.
//!
//! | path | what |
//! | --- | --- |
//! | `LOCK` | held by the writing process; holds its id |
//! | `topics/NAME/topic.json` | a topic's options |
//! | `topics/NAME/PARTITION/` | its segments |
//! | `transactions/ID/` | epochs that are not committed yet |

use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::options::{LogOptions, TopicOptions};
use crate::recovery::Recovery;
use crate::topic::{self, Topic, check_name};
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
pub(crate) struct Inner {
    pub(crate) environment: Arc<Environment>,
    topics: RwLock<BTreeMap<String, Topic>>,
    recovery: Recovery,
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
        disk.sync_dir(&environment.directory).map_err(|e| Error::io("syncing", &environment.directory, e))?;
        let mut recovery = Recovery::default();
        let mut topics = BTreeMap::new();
        for name in topic::list(&environment)? {
            let topic = Topic::open(&environment, &name, &mut recovery)?;
            topics.insert(name, topic);
        }
        Ok(Log { inner: Arc::new(Inner { environment, topics: RwLock::new(topics), recovery }) })
    }

    /// Opens the log in a folder for reading only, beside the process that writes to it, if there is one. Sees what that process appends, but
    /// not before looking: see [`Reader::wake_with`](crate::Reader::wake_with).
    pub fn open_read_only(directory: impl AsRef<Path>, options: LogOptions) -> Result<Log> {
        let environment = Arc::new(Environment::of_reader(directory.as_ref(), options));
        let log = Log {
            inner: Arc::new(Inner { environment, topics: RwLock::default(), recovery: Recovery::default() }),
        };
        log.find_topics()?;
        Ok(log)
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
        let environment = &self.inner.environment;
        environment.check_writer("creating a topic")?;
        check_name(name)?;
        let mut topics = self.inner.topics.write();
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
        if let Some(topic) = self.inner.topics.read().get(name) {
            return Ok(topic.clone());
        }
        self.find_topics()?;
        let topics = self.inner.topics.read();
        topics.get(name).cloned().ok_or_else(|| Error::UnknownTopic { topic: name.to_owned() })
    }

    /// All topics, by name.
    pub fn topics(&self) -> Result<Vec<Topic>> {
        self.find_topics()?;
        Ok(self.inner.topics.read().values().cloned().collect())
    }

    /// In another process than the writer's: looks for topics that are new.
    fn find_topics(&self) -> Result<()> {
        if !self.inner.environment.is_read_only() {
            return Ok(());
        }
        let mut topics = self.inner.topics.write();
        for name in topic::list(&self.inner.environment)? {
            if let Entry::Vacant(vacant) = topics.entry(name) {
                let topic = Topic::open(&self.inner.environment, vacant.key(), &mut Recovery::default())?;
                vacant.insert(topic);
            }
        }
        Ok(())
    }

    /// Makes everything that has been appended so far durable.
    pub fn sync(&self) -> Result<()> {
        self.topics()?.iter().try_for_each(Topic::sync)
    }

    /// Does what time asks for: syncs what is due, removes what retention no longer keeps, compacts. To be called now and then, say every
    /// second, from any thread; the log has no thread of its own. In a log opened read-only it looks for new records.
    ///
    /// `now_ms` is the time in milliseconds since the Unix epoch.
    pub fn maintain(&self, now_ms: i64) -> Result<()> {
        for topic in self.topics()? {
            for partition in topic.all() {
                partition.refresh()?;
                partition.sync_if_due(now_ms)?;
            }
        }
        Ok(())
    }
}
