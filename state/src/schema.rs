//! What a state's types are called in a snapshot.

use std::any::type_name;

/// The name of a type without the modules that lead to it: `HashMap<String, Order>` for what the compiler calls
/// `std::collections::hash::map::HashMap<alloc::string::String, shop::model::Order>`.
///
/// A type that moves to another module, or a library's that its authors move, is then still the same. Two types of one name are told apart
/// by what they encode to, if at all; the name is there to catch a mistake, not an intention.
pub(crate) fn schema_of<T: ?Sized>() -> String {
    without_modules(type_name::<T>())
}

/// Names joined by arrows, as in `u64 -> Order`.
pub(crate) fn schema(types: &[String]) -> String {
    types.join(" -> ")
}

fn without_modules(name: &str) -> String {
    let mut short = String::with_capacity(name.len());
    // Where the identifier begins that is being copied.
    let mut begun = 0;
    let mut rest = name.chars().peekable();
    while let Some(c) = rest.next() {
        if c == ':' && rest.peek() == Some(&':') && begun < short.len() {
            rest.next();
            short.truncate(begun);
            continue;
        }
        short.push(c);
        if !c.is_alphanumeric() && !"_{}#".contains(c) {
            begun = short.len();
        }
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    mod here {
        pub struct Order<T>(pub T);
    }
    mod there {
        pub mod deeper {
            pub struct Order<T>(pub T);
        }
    }

    #[test]
    fn a_schema_is_the_same_wherever_its_types_live() {
        let (here, there) = (schema_of::<here::Order<String>>(), schema_of::<there::deeper::Order<String>>());
        assert_eq!((here.as_str(), there.as_str()), ("Order<String>", "Order<String>"));
        assert_ne!(schema_of::<here::Order<u32>>(), here);
    }

    #[test]
    fn everything_but_modules_is_kept() {
        let cases = [
            ("(u64, [core::option::Option<alloc::vec::Vec<u8>>; 4])", "(u64, [Option<Vec<u8>>; 4])"),
            ("&dyn core::fmt::Debug", "&dyn Debug"),
            ("<shop::Order as shop::Priced>::Price", "<Order as Priced>::Price"),
            ("shop::main::{{closure}}::Order", "Order"),
            ("()", "()"),
        ];
        for (full, short) in cases {
            assert_eq!(without_modules(full), short);
        }
    }
}
