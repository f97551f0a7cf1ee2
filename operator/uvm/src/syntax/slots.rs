//! Slots of object literals.

use super::{
    ast::*,
    lexer::Token,
    parser::{Parsed, Parser},
};

impl Parser<'_> {
    /// Slots up to and with `|)`.
    pub(super) fn slots(&mut self) -> Parsed<Vec<SlotNode>> {
        let (mut slots, mut height): (Vec<SlotNode>, u32) = (Vec::new(), 0);
        loop {
            if self.eat(&Token::CloseSlots) {
                return Ok(slots);
            }
            self.height = 0;
            let slot = self.slot()?;
            height = self.rise(height);
            if slots.iter().any(|other| other.name == slot.name) {
                return Err(self.error_at(slot.at, format!("two slots are called {:?}", slot.name)));
            }
            slots.push(slot);
            if !self.eat(&Token::Period) && self.peek() != &Token::CloseSlots {
                return self.unexpected("'.' or '|)' after a slot");
            }
        }
    }

    pub(super) fn slot(&mut self) -> Parsed<SlotNode> {
        let at = self.at();
        let (name, arguments) = self.slot_header()?;
        let op = match self.peek() {
            Token::Binary(op) => op.clone(),
            _ => String::new(),
        };
        let kind = match (op.as_str(), arguments.is_empty()) {
            ("=", _) if self.is_method() => {
                self.next += 1;
                let code = self.nested(|parser| parser.method_body(at, arguments))?;
                self.expect(&Token::Close, "')' at the end of the method")?;
                SlotNodeKind::Method(code)
            }
            (_, false) => return self.unexpected("'= ( … )' after a method's header"),
            ("=", true) => {
                self.next += 1;
                SlotNodeKind::Constant(self.expression()?)
            }
            ("<-", true) => {
                self.next += 1;
                SlotNodeKind::Assignable(Some(self.expression()?))
            }
            ("*" | "*=" | "*<-", true) => {
                self.next += 1;
                let assign = match op.as_str() {
                    "*" => self.bump(),
                    glued => Token::Binary(glued.trim_start_matches('*').to_owned()),
                };
                let assignable = match assign {
                    Token::Binary(op) if op == "=" => false,
                    Token::Binary(op) if op == "<-" => true,
                    _ => return self.unexpected("'=' or '<-' after a parent slot's '*'"),
                };
                SlotNodeKind::Parent { assignable, value: self.expression()? }
            }
            _ if matches!(self.peek(), Token::Period | Token::CloseSlots | Token::End) => {
                SlotNodeKind::Assignable(None)
            }
            _ => return self.unexpected("'=', '<-', '*', '.' or '|)' after a slot's name"),
        };
        Ok(SlotNode { at, name, kind })
    }

    /// What `(` or, with locals, `(|` opens.
    fn method_body(&mut self, at: Position, arguments: Vec<String>) -> Parsed<Code> {
        if self.bump() == Token::OpenSlots {
            self.next -= 1;
            if let Some((token, _)) = self.tokens.get_mut(self.next) {
                *token = Token::Binary("|".to_owned());
            }
        }
        self.code_body(at, arguments)
    }

    /// Name and argument names. `x` unary, `+ n` binary, `at: k put: v` keyword.
    fn slot_header(&mut self) -> Parsed<(String, Vec<String>)> {
        let mut arguments = Vec::new();
        let mut name = match self.bump() {
            Token::Name(name) => return Ok((name, arguments)),
            Token::Binary(op) => op,
            Token::Keyword(part) => part,
            _ => {
                self.next -= 1;
                return self.unexpected("the name of a slot");
            }
        };
        loop {
            match self.bump() {
                Token::Name(argument) => arguments.push(argument),
                _ => {
                    self.next -= 1;
                    return self.unexpected("the name of an argument");
                }
            }
            match self.peek().clone() {
                Token::Keyword(part) if name.ends_with(':') => {
                    self.next += 1;
                    name += &part;
                }
                _ => return Ok((name, arguments)),
            }
        }
    }

    /// Whether `= ( … )` comes next and is closed by what ends a slot: then it is a method, not a parenthesised value.
    fn is_method(&self) -> bool {
        // `(| a b | …` are locals; the slots of an object would be followed by a period or by `|)`.
        if self.peek_at(1) == &Token::OpenSlots {
            let names = (2..).take_while(|ahead| matches!(self.peek_at(*ahead), Token::Name(_))).count();
            return self.peek_at(2 + names) == &Token::Binary("|".to_owned());
        }
        if self.peek_at(1) != &Token::Open {
            return false;
        }
        let mut depth = 0_usize;
        for ahead in 1.. {
            match self.peek_at(ahead) {
                Token::Open | Token::OpenArray | Token::OpenSlots => depth += 1,
                Token::Close | Token::CloseSlots => depth -= 1,
                Token::End => return false,
                _ => {}
            }
            if depth == 0 {
                return matches!(self.peek_at(ahead + 1), Token::Period | Token::CloseSlots | Token::End);
            }
        }
        false
    }
}
