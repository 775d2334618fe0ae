//! A count a key, as a user would write it.

use rivermark::{BoxError, Context, ProcessFunction, Value};

const COUNT: Value<u64> = Value::new("count");

/// Counts the records of each key and emits nothing.
#[derive(Clone)]
pub struct Counting;

impl<V: Send + 'static> ProcessFunction<u64, V> for Counting {
    type Out = ();

    fn on_record(&mut self, _key: &u64, _record: V, cx: &mut Context<'_, u64, ()>) -> Result<(), BoxError> {
        cx.state(COUNT).update(|| 0, |count| *count += 1)
    }
}

/// The operator that counts, in a job's metrics.
pub const OPERATOR: &str = "process-1";
