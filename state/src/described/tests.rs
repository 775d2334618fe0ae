use super::*;
use crate::codec::encode_into;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Clone, Serialize, Deserialize)]
struct Order {
    buyer: String,
    cents: u64,
}

fn bytes<T: StateValue>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_into(value, &mut bytes).unwrap();
    bytes
}

/// What a value becomes that only its type's name and its bytes are known of.
fn shown<T: StateValue>(types: &Types, value: &T) -> Value {
    types.read_all(&Shape::parse(&schema_of::<T>()).unwrap(), &bytes(value))
}

#[test]
fn types_of_the_language_and_its_library_are_shown_as_serde_shows_them() {
    fn same<T: StateValue>(value: T) {
        assert_eq!(
            shown(&Types::new(), &value),
            serde_json::to_value(&value).unwrap(),
            "{}",
            schema_of::<T>()
        );
    }
    same(true);
    same((1_u8, -2_i8, 3_u16, -4_i16, 5_u32, -6_i32, u64::MAX, i64::MIN));
    same((1.5_f32, f64::MIN_POSITIVE, 'ß', '\u{1f600}', "text".to_owned()));
    same(vec![Some("a".to_owned()), None]);
    same([1_u32, 2, 3]);
    same(vec![0_u8, 255]);
    same(BTreeMap::from([("a".to_owned(), (1_u64, 2_i64))]));
    same(Box::new(Some(vec![(1_u8,)])));
    same(());
    same(std::num::NonZero::<u64>::new(7).unwrap());
}

#[test]
fn what_json_has_not_is_text() {
    let types = Types::new();
    assert_eq!(shown(&types, &u128::MAX), json!(u128::MAX.to_string()));
    assert_eq!(shown(&types, &f64::INFINITY), json!("inf"));
    assert_eq!(shown(&types, &Duration::from_millis(1500)), json!("1.5s"));
    assert_eq!(shown(&types, &BTreeMap::from([(1_u8, 2_u8)])), json!([[1, 2]]));
}

#[test]
fn a_type_that_is_not_known_takes_the_rest_as_bytes() {
    let order = Order { buyer: "ann".into(), cents: 5 };
    let shown = shown(&Types::new(), &(7_u64, order.clone()));
    assert_eq!(shown[0], json!(7));
    assert_eq!(shown[1]["type"], "Order");
    assert_eq!(
        shown[1]["text"],
        "\\x03\\x00\\x00\\x00\\x00\\x00\\x00\\x00ann\\x05\\x00\\x00\\x00\\x00\\x00\\x00\\x00"
    );
}

#[test]
fn a_type_that_is_registered_or_defined_is_shown() {
    let orders = vec![Order { buyer: "ann".into(), cents: 5 }, Order { buyer: "bob".into(), cents: 6 }];
    let mut types = Types::new();
    types.define("Order", "(String, Cents)").unwrap().define("Cents", "u64").unwrap();
    assert_eq!(shown(&types, &orders), json!([["ann", 5], ["bob", 6]]));
    types.know::<Order>();
    assert_eq!(shown(&types, &orders), serde_json::to_value(&orders).unwrap());
}

#[test]
fn bytes_that_are_not_of_the_type_are_shown_as_bytes() {
    let types = Types::new();
    let shape = Shape::parse("(u64, String)").unwrap();
    let whole = bytes(&(1_u64, "text".to_owned()));
    for length in 0..whole.len() {
        assert_eq!(types.read_all(&shape, &whole[..length])["type"], "(u64, String)", "{length}");
    }
    let longer = [&*whole, &[0]].concat();
    assert_eq!(types.read_all(&shape, &longer)["type"], "(u64, String)");
    // A length that no memory has.
    let huge = Shape::parse("Vec<u64>").unwrap();
    assert_eq!(types.read_all(&huge, &u64::MAX.to_le_bytes())["type"], "Vec<u64>");
}

#[test]
fn a_definition_of_itself_is_no_end_of_it() {
    let mut types = Types::new();
    types.define("Loop", "Loop").unwrap();
    assert_eq!(types.read_all(&Shape::parse("Loop").unwrap(), &[1])["hex"], "01");
}

#[test]
fn what_somebody_types_is_written_as_the_program_would() {
    fn same<T: StateValue>(value: T) {
        let (types, shape) = (Types::new(), Shape::parse(&schema_of::<T>()).unwrap());
        let mut written = Vec::new();
        types.write(&shape, &serde_json::to_value(&value).unwrap(), &mut written).unwrap();
        assert_eq!(written, bytes(&value), "{shape}");
    }
    same("JFK".to_owned());
    same((u64::MAX, i64::MIN, 1_u8, -1_i16));
    same((true, 'ß', 2.5_f64, Some("x".to_owned()), None::<u8>));
    same([vec![1_u32], vec![]]);
    let mut types = Types::new();
    types.know::<Order>();
    let (order, mut written) = (Order { buyer: "ann".into(), cents: 5 }, Vec::new());
    types
        .write(&Shape::parse("Order").unwrap(), &serde_json::to_value(&order).unwrap(), &mut written)
        .unwrap();
    assert_eq!(written, bytes(&order));
}

#[test]
fn what_is_not_of_the_type_is_refused() {
    let refused = |shape: &str, value: Value| {
        Types::new().write(&Shape::parse(shape).unwrap(), &value, &mut Vec::new()).unwrap_err()
    };
    assert!(refused("u8", json!(256)).contains("256 is not a u8"));
    assert!(refused("(u8, u8)", json!([1])).contains("is not a (u8, u8)"));
    assert!(refused("Order", json!({})).contains("not known"));
}

#[test]
fn names_of_types_are_parsed_and_told_again() {
    for name in ["u64", "(String, u64)", "Option<Vec<(u8,)>>", "[HashMap<String, f64>; 4]", "()"] {
        assert_eq!(Shape::parse(name).unwrap().to_string(), name);
    }
    let schema = Shape::parse_schema("(i64, i64) -> String -> Windowed<u64>").unwrap();
    assert_eq!(
        schema.iter().map(Shape::to_string).collect::<Vec<_>>(),
        ["(i64, i64)", "String", "Windowed<u64>"]
    );
    let error = Shape::parse("Vec<u8").unwrap_err();
    assert!(error.contains("character 7") && error.contains("`>`"), "{error}");
    assert!(Shape::parse("").is_err() && Shape::parse("u8 u8").is_err());
}
