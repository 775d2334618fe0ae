//! Names of types, parsed.

use std::fmt;

/// A type as its name has it, without modules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A type of that name, and what it is over: `Option<u64>`. A slice is called `Slice`, and a reference is what it refers to.
    Named(String, Vec<Shape>),
    /// Fields one after the other.
    Tuple(Vec<Shape>),
    /// So many of the same.
    Array(Box<Shape>, usize),
}

impl Shape {
    /// Parses the name of one type.
    ///
    /// # Errors
    /// It is not the name of a type; the error says where it ceases to be one.
    pub fn parse(name: &str) -> Result<Shape, String> {
        let mut parser = Parser { name, rest: name };
        let shape = parser.shape()?;
        parser.end()?;
        Ok(shape)
    }

    /// Parses the types of a state: those of its keys, and that of its values, joined by arrows.
    ///
    /// # Errors
    /// As [`Shape::parse`].
    pub fn parse_schema(schema: &str) -> Result<Vec<Shape>, String> {
        let mut parser = Parser { name: schema, rest: schema };
        let mut shapes = vec![parser.shape()?];
        while parser.eat("->") {
            shapes.push(parser.shape()?);
        }
        parser.end()?;
        Ok(shapes)
    }

    /// What a type is over.
    pub(super) fn arguments(&self) -> &[Shape] {
        match self {
            Shape::Named(_, arguments) => arguments,
            Shape::Tuple(_) | Shape::Array(..) => &[],
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, shapes: &[Shape]| {
            shapes.iter().enumerate().try_for_each(|(at, shape)| match at {
                0 => write!(f, "{shape}"),
                _ => write!(f, ", {shape}"),
            })
        };
        match self {
            Shape::Named(name, arguments) if arguments.is_empty() => f.write_str(name),
            Shape::Named(name, arguments) => {
                write!(f, "{name}<")?;
                list(f, arguments)?;
                f.write_str(">")
            }
            Shape::Tuple(fields) => {
                f.write_str("(")?;
                list(f, fields)?;
                f.write_str(if fields.len() == 1 { ",)" } else { ")" })
            }
            Shape::Array(item, length) => write!(f, "[{item}; {length}]"),
        }
    }
}

struct Parser<'a> {
    name: &'a str,
    rest: &'a str,
}

impl Parser<'_> {
    fn eat(&mut self, token: &str) -> bool {
        self.rest = self.rest.trim_start();
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        if self.eat(token) { Ok(()) } else { Err(self.error(&format!("`{token}`"))) }
    }

    fn end(&mut self) -> Result<(), String> {
        if self.rest.trim().is_empty() { Ok(()) } else { Err(self.error("the end")) }
    }

    fn error(&self, wanted: &str) -> String {
        let at = self.name.len() - self.rest.len();
        format!("`{}` is not a type: at character {} there should be {wanted}", self.name, at + 1)
    }

    fn shape(&mut self) -> Result<Shape, String> {
        if self.eat("&") {
            if self.rest.starts_with('\'') {
                self.word();
            }
            return self.shape();
        }
        if self.eat("(") {
            return Ok(Shape::Tuple(self.list(")")?));
        }
        if self.eat("[") {
            let item = self.shape()?;
            if self.eat("]") {
                return Ok(Shape::Named("Slice".to_owned(), vec![item]));
            }
            self.expect(";")?;
            let length = self.word().parse().map_err(|_| self.error("a length"))?;
            self.expect("]")?;
            return Ok(Shape::Array(Box::new(item), length));
        }
        let name = self.word();
        if name.is_empty() {
            return Err(self.error("the name of a type"));
        }
        let arguments = if self.eat("<") { self.list(">")? } else { Vec::new() };
        Ok(Shape::Named(name, arguments))
    }

    /// Types up to the closing token.
    fn list(&mut self, close: &str) -> Result<Vec<Shape>, String> {
        let mut shapes = Vec::new();
        loop {
            if self.eat(close) {
                return Ok(shapes);
            }
            shapes.push(self.shape()?);
            if !self.eat(",") {
                self.expect(close)?;
                return Ok(shapes);
            }
        }
    }

    fn word(&mut self) -> String {
        self.rest = self.rest.trim_start();
        let end = self.rest.find(|c: char| !(c.is_alphanumeric() || "_':{}#".contains(c)));
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        word.to_owned()
    }
}
