//! Typed constants that are a state's name, schema and handle at once, as redb's `TableDefinition`.
//!
//! ```
//! use rivermark_state::{List, Map, Reducing, Value};
//! const CLICKS: Value<u64> = Value::new("clicks");
//! const VISITED: Map<String, u32> = Map::new("visited");
//! const LAST: List<String> = List::new("last");
//! const BEST: Reducing<u64> = Reducing::new("best");
//! assert_eq!(CLICKS.name(), "clicks");
//! // After its type has changed:
//! const CLICKS_NOW: Value<(u64, String)> = Value::new("clicks").version(2);
//! assert_eq!(CLICKS_NOW.schema_version(), 2);
//! ```

use std::fmt;
use std::marker::PhantomData;

use serde::{Deserialize, Serialize};

/// What kind of table a state is; part of its schema, checked when a snapshot is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StateKind {
    /// One value a key.
    Value,
    /// One value a key, folded by a function.
    Reducing,
    /// A list a key.
    List,
    /// A map a key.
    Map,
    /// One value a window and key.
    Window,
    /// Event-time timers.
    Timers,
}

impl StateKind {
    /// Whether a user names states of this kind, by a handle. The others are named by operators.
    pub(crate) const fn has_handle(self) -> bool {
        match self {
            Self::Value | Self::Reducing | Self::List | Self::Map => true,
            Self::Window | Self::Timers => false,
        }
    }
}

impl fmt::Display for StateKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Value => "Value",
            Self::Reducing => "Reducing",
            Self::List => "List",
            Self::Map => "Map",
            Self::Window => "Window",
            Self::Timers => "Timers",
        })
    }
}

macro_rules! handle {
    ($(#[$doc:meta])* $name:ident<$($type:ident),+>) => {
        $(#[$doc])*
        pub struct $name<$($type),+> {
            name: &'static str,
            version: u32,
            types: PhantomData<fn() -> ($($type,)+)>,
        }

        impl<$($type),+> $name<$($type),+> {
            /// A handle of this name, which must be unique within its operator and stay the same over releases.
            pub const fn new(name: &'static str) -> Self {
                Self { name, version: 1, types: PhantomData }
            }

            /// Says which version of its schema the state has now. The first is 1; whoever changes what the type holds, in a way that
            /// changes how serde writes it, counts one on and gives a [migration](crate::Migrations) from the version before.
            #[must_use]
            pub const fn version(self, version: u32) -> Self {
                Self { version, ..self }
            }

            /// Which version of its schema the state has.
            pub const fn schema_version(&self) -> u32 {
                self.version
            }

            /// The state's name.
            pub const fn name(&self) -> &'static str {
                self.name
            }
        }

        impl<$($type),+> Clone for $name<$($type),+> {
            fn clone(&self) -> Self {
                *self
            }
        }
        impl<$($type),+> Copy for $name<$($type),+> {}

        impl<$($type),+> fmt::Debug for $name<$($type),+> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:?})", stringify!($name), self.name)
            }
        }
    };
}

handle!(
    /// One `T` a key.
    Value<T>
);
handle!(
    /// A list of `T` a key; appending does not rewrite what is there.
    List<T>
);
handle!(
    /// A map from `K` to `V` a key; each entry is read and written alone.
    Map<K, V>
);
handle!(
    /// One `T` a key that new values are merged into.
    Reducing<T>
);
