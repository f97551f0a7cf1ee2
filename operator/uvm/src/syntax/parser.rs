//! Tokens to the tree, by recursive descent of bounded depth.

use std::fmt;

use super::{
    ast::*,
    lexer::{Token, tokens},
};

/// Deepest nesting of expressions; the tree is walked recursively.
const MAX_NESTING: u32 = 120;
/// Highest tree: messages to the answers of messages count too.
const MAX_HEIGHT: u32 = 250;

/// What is wrong with a source, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct SyntaxError {
    pub at: Position,
    pub message: String,
    /// The line at fault.
    pub line_text: String,
}

impl SyntaxError {
    pub(super) fn new(source: &str, at: Position, message: String) -> Self {
        let line = source.lines().nth(at.line.saturating_sub(1) as usize).unwrap_or_default();
        Self { at, message, line_text: line.chars().take(200).collect() }
    }
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, message, line_text } = self;
        let caret = " ".repeat(at.column.saturating_sub(1).min(200) as usize);
        write!(f, "line {}, column {}: {message}\n  {line_text}\n  {caret}^", at.line, at.column)
    }
}

pub(super) type Parsed<T> = Result<T, SyntaxError>;

/// Parses statements, as a doit: its answer is the last one's.
pub fn parse_expression(source: &str) -> Parsed<Code> {
    let mut parser = Parser::new(source)?;
    let at = parser.at();
    let code = parser.code_body(at, Vec::new())?;
    parser.expect(&Token::End, "the end of the source")?;
    Ok(code)
}

/// Parses exactly one method slot: `deposit: n = ( … )`.
pub fn parse_method(source: &str) -> Parsed<SlotNode> {
    let mut parser = Parser::new(source)?;
    let at = parser.at();
    let slot = parser.slot()?;
    parser.eat(&Token::Period);
    parser.expect(&Token::End, "the end of the method")?;
    match slot.kind {
        SlotNodeKind::Method(_) => Ok(slot),
        _ => Err(parser.error_at(at, format!("{:?} is a data slot; a method is written `{0} = ( … )`", slot.name))),
    }
}

/// Parses the text of an object literal: `(| … |)`.
pub fn parse_slots(source: &str) -> Parsed<Vec<SlotNode>> {
    let mut parser = Parser::new(source)?;
    parser.expect(&Token::OpenSlots, "'(|'")?;
    let slots = parser.slots()?;
    parser.expect(&Token::End, "the end of the object")?;
    Ok(slots)
}

pub(super) struct Parser<'a> {
    source: &'a str,
    pub(super) tokens: Vec<(Token, Position)>,
    pub(super) next: usize,
    depth: u32,
    /// Of what was parsed last.
    pub(super) height: u32,
}

impl<'a> Parser<'a> {
    fn new(source: &'a str) -> Parsed<Self> {
        Ok(Self { source, tokens: tokens(source)?, next: 0, depth: 0, height: 0 })
    }

    pub(super) fn peek_at(&self, ahead: usize) -> &Token {
        self.tokens.get(self.next + ahead).map_or(&Token::End, |(token, _)| token)
    }

    pub(super) fn peek(&self) -> &Token {
        self.peek_at(0)
    }

    pub(super) fn at(&self) -> Position {
        self.tokens.get(self.next).or(self.tokens.last()).map(|(_, at)| *at).unwrap_or_default()
    }

    pub(super) fn bump(&mut self) -> Token {
        let token = self.peek().clone();
        self.next += 1;
        token
    }

    pub(super) fn eat(&mut self, token: &Token) -> bool {
        let found = self.peek() == token;
        self.next += usize::from(found);
        found
    }

    pub(super) fn error_at(&self, at: Position, message: String) -> SyntaxError {
        SyntaxError::new(self.source, at, message)
    }

    pub(super) fn unexpected<T>(&self, wanted: &str) -> Parsed<T> {
        Err(self.error_at(self.at(), format!("expected {wanted} but found {}", show(self.peek()))))
    }

    pub(super) fn expect(&mut self, token: &Token, wanted: &str) -> Parsed<()> {
        match self.eat(token) {
            true => Ok(()),
            false => self.unexpected(wanted),
        }
    }

    pub(super) fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth >= MAX_NESTING {
            return Err(self.error_at(self.at(), format!("nested deeper than {MAX_NESTING}")));
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    /// Notes that what was parsed last has a part as high as `part`.
    pub(super) fn rise(&mut self, part: u32) -> u32 {
        self.height = self.height.max(part);
        self.height
    }

    /// Notes a message to something of this height.
    fn grow(&mut self, receiver: u32) -> Parsed<()> {
        self.height = self.rise(receiver) + 1;
        match self.height > MAX_HEIGHT {
            true => Err(self.error_at(self.at(), format!("more than {MAX_HEIGHT} messages in one expression"))),
            false => Ok(()),
        }
    }

    /// Locals and statements, up to a closing token.
    pub(super) fn code_body(&mut self, at: Position, arguments: Vec<String>) -> Parsed<Code> {
        let mut locals = Vec::new();
        if self.eat(&Token::Binary("|".to_owned())) {
            while !self.eat(&Token::Binary("|".to_owned())) {
                match self.bump() {
                    Token::Name(name) => locals.push(name),
                    _ => {
                        self.next -= 1;
                        return self.unexpected("the name of a local or '|'");
                    }
                }
            }
        }
        let (mut body, mut height) = (Vec::new(), 0);
        while !matches!(self.peek(), Token::End | Token::Close | Token::CloseBlock) {
            let statement = match self.eat(&Token::Caret) {
                true => Statement::Return(self.expression()?),
                false => Statement::Expr(self.expression()?),
            };
            body.push(statement);
            height = self.rise(height);
            if !self.eat(&Token::Period) {
                break;
            }
        }
        self.height = height;
        Ok(Code { at, arguments, locals, body })
    }

    pub(super) fn expression(&mut self) -> Parsed<Expr> {
        self.nested(|parser| {
            let at = parser.at();
            if let (Token::Name(name), Token::Assign) = (parser.peek().clone(), parser.peek_at(1)) {
                parser.next += 2;
                let value = Box::new(parser.expression()?);
                return Ok(Expr { at, kind: ExprKind::Assign { name, value } });
            }
            let first = parser.keyword_send()?;
            if parser.peek() != &Token::Semicolon {
                return Ok(first);
            }
            if !matches!(first.kind, ExprKind::Send { .. }) {
                return parser.unexpected("a message before ';'");
            }
            let mut others = Vec::new();
            while parser.eat(&Token::Semicolon) {
                let height = parser.height;
                others.push(parser.cascade_part()?);
                parser.grow(height)?;
            }
            Ok(Expr { at, kind: ExprKind::Cascade { first: Box::new(first), others } })
        })
    }

    fn cascade_part(&mut self) -> Parsed<CascadePart> {
        let at = self.at();
        match self.peek().clone() {
            Token::Name(selector) => {
                self.next += 1;
                Ok(CascadePart { at, selector, arguments: Vec::new() })
            }
            Token::Binary(selector) => {
                self.next += 1;
                let argument = self.unary_send()?;
                Ok(CascadePart { at, selector, arguments: vec![argument] })
            }
            Token::Keyword(_) => {
                let (selector, arguments) = self.keyword_message()?;
                Ok(CascadePart { at, selector, arguments })
            }
            _ => self.unexpected("a message after ';'"),
        }
    }

    fn keyword_message(&mut self) -> Parsed<(String, Vec<Expr>)> {
        let (mut selector, mut arguments, mut height) = (String::new(), Vec::new(), 0);
        while let Token::Keyword(part) = self.peek().clone() {
            self.next += 1;
            selector += &part;
            arguments.push(self.binary_send()?);
            height = self.rise(height);
        }
        Ok((selector, arguments))
    }

    fn keyword_send(&mut self) -> Parsed<Expr> {
        let at = self.at();
        self.height = 0;
        let receiver = match self.peek() {
            Token::Keyword(_) => Receiver::ImplicitSelf,
            _ => {
                let receiver = self.binary_send()?;
                if !matches!(self.peek(), Token::Keyword(_)) {
                    return Ok(receiver);
                }
                self.receiver(receiver)
            }
        };
        let height = self.height;
        let (selector, arguments) = self.keyword_message()?;
        self.grow(height)?;
        Ok(Expr { at, kind: ExprKind::Send { receiver, selector, arguments } })
    }

    fn binary_send(&mut self) -> Parsed<Expr> {
        let mut receiver = self.unary_send()?;
        loop {
            let at = self.at();
            let selector = match self.peek() {
                Token::Binary(selector) => selector.clone(),
                // `3 -4` is a subtraction: a number cannot follow an operand.
                Token::Integer(digits) if digits.starts_with('-') => "-".to_owned(),
                Token::Float(value) if value.is_sign_negative() => "-".to_owned(),
                _ => return Ok(receiver),
            };
            let height = self.height;
            let positive = match self.peek() {
                Token::Integer(digits) => Some(Token::Integer(digits.trim_start_matches('-').to_owned())),
                Token::Float(value) => Some(Token::Float(-value)),
                _ => None,
            };
            let argument = match positive {
                Some(positive) => {
                    if let Some((token, _)) = self.tokens.get_mut(self.next) {
                        *token = positive;
                    }
                    self.unary_send()?
                }
                None => {
                    self.next += 1;
                    self.unary_send()?
                }
            };
            self.grow(height)?;
            let receiver_node = self.receiver(receiver);
            receiver =
                Expr { at, kind: ExprKind::Send { receiver: receiver_node, selector, arguments: vec![argument] } };
        }
    }

    fn unary_send(&mut self) -> Parsed<Expr> {
        let mut receiver = self.primary()?;
        while let Token::Name(selector) = self.peek().clone() {
            let at = self.at();
            // `name resend foo` is a directed resend: `name` is a parent slot.
            if selector == "resend"
                && let ExprKind::Name(parent) = &receiver.kind
            {
                let parent = parent.clone();
                self.next += 1;
                receiver = self.directed(at, parent)?;
                continue;
            }
            self.next += 1;
            self.grow(self.height)?;
            let node = self.receiver(receiver);
            receiver = Expr { at, kind: ExprKind::Send { receiver: node, selector, arguments: Vec::new() } };
        }
        Ok(receiver)
    }

    fn directed(&mut self, at: Position, parent: String) -> Parsed<Expr> {
        let receiver = Receiver::DirectedResend(parent);
        let (selector, arguments) = match self.peek().clone() {
            Token::Name(selector) => {
                self.next += 1;
                (selector, Vec::new())
            }
            Token::Binary(selector) => {
                self.next += 1;
                (selector, vec![self.unary_send()?])
            }
            Token::Keyword(_) => self.keyword_message()?,
            _ => return self.unexpected("the message to resend"),
        };
        Ok(Expr { at, kind: ExprKind::Send { receiver, selector, arguments } })
    }

    /// `resend` as a receiver is not an object; Smalltalk's word for it is `super`.
    fn receiver(&self, receiver: Expr) -> Receiver {
        match receiver.kind {
            ExprKind::Name(name) if name == "resend" || name == "super" => Receiver::Resend,
            _ => Receiver::Expr(Box::new(receiver)),
        }
    }

    fn primary(&mut self) -> Parsed<Expr> {
        let at = self.at();
        self.height = 0;
        let kind = match self.bump() {
            Token::Name(name) if name == "self" => ExprKind::SelfRef,
            Token::Name(name) => ExprKind::Name(name),
            Token::Integer(digits) => ExprKind::Integer(digits),
            Token::Float(value) => ExprKind::Float(value),
            Token::Str(text) => ExprKind::Str(text),
            Token::Symbol(text) => ExprKind::Symbol(text),
            Token::Char(c) => ExprKind::Char(c),
            Token::OpenArray => ExprKind::LiteralArray(self.nested(Self::literals)?),
            Token::OpenBrace => ExprKind::DynamicArray(self.nested(Self::elements)?),
            Token::OpenSlots => ExprKind::Object(self.nested(Self::slots)?),
            Token::OpenBlock => ExprKind::Block(self.nested(|parser| parser.block(at))?),
            Token::Open => {
                let inner = self.expression()?;
                self.expect(&Token::Close, "')'")?;
                return Ok(inner);
            }
            _ => {
                self.next -= 1;
                return self.unexpected("an expression");
            }
        };
        Ok(Expr { at, kind })
    }

    fn block(&mut self, at: Position) -> Parsed<Code> {
        let mut arguments = Vec::new();
        while let Token::Argument(name) = self.peek().clone() {
            self.next += 1;
            arguments.push(name);
        }
        if !arguments.is_empty() && !self.eat(&Token::Binary("|".to_owned())) && self.peek() != &Token::CloseBlock {
            return self.unexpected("'|' after the block's arguments");
        }
        let code = self.code_body(at, arguments)?;
        self.expect(&Token::CloseBlock, "']'")?;
        Ok(code)
    }

    fn elements(&mut self) -> Parsed<Vec<Expr>> {
        let (mut elements, mut height) = (Vec::new(), 0);
        while !self.eat(&Token::CloseBrace) {
            elements.push(self.expression()?);
            height = self.rise(height);
            if !self.eat(&Token::Period) {
                self.expect(&Token::CloseBrace, "'.' or '}'")?;
                break;
            }
        }
        Ok(elements)
    }

    /// Elements of `#( … )`: bare names are symbols, but `nil true false` are themselves.
    fn literals(&mut self) -> Parsed<Vec<Expr>> {
        let mut elements = Vec::new();
        loop {
            let at = self.at();
            let kind = match self.bump() {
                Token::Close => return Ok(elements),
                Token::Integer(digits) => ExprKind::Integer(digits),
                Token::Float(value) => ExprKind::Float(value),
                Token::Str(text) => ExprKind::Str(text),
                Token::Char(c) => ExprKind::Char(c),
                Token::Name(name) if ["nil", "true", "false"].contains(&name.as_str()) => ExprKind::Name(name),
                Token::Keyword(text) => ExprKind::Symbol(self.joined(at, text)),
                Token::Symbol(text) | Token::Name(text) | Token::Binary(text) => ExprKind::Symbol(text),
                Token::Open | Token::OpenArray => ExprKind::LiteralArray(self.nested(Self::literals)?),
                _ => {
                    self.next -= 1;
                    return self.unexpected("a literal or ')'");
                }
            };
            elements.push(Expr { at, kind });
        }
    }

    /// `at:put:` from its parts, which touch each other.
    fn joined(&mut self, at: Position, mut text: String) -> String {
        let column = |text: &str| at.column as usize + text.chars().count();
        while let Token::Keyword(part) | Token::Name(part) = self.peek().clone()
            && self.at().line == at.line
            && self.at().column as usize == column(&text)
        {
            self.next += 1;
            text += &part;
        }
        text
    }
}

fn show(token: &Token) -> String {
    match token {
        Token::Name(text) | Token::Keyword(text) | Token::Binary(text) => format!("{text:?}"),
        Token::Argument(text) => format!("':{text}'"),
        Token::Integer(text) => text.clone(),
        Token::Float(value) => value.to_string(),
        Token::Str(_) => "a string".to_owned(),
        Token::Symbol(text) => format!("#{text}"),
        Token::Char(c) => format!("${c}"),
        Token::Assign => "':='".to_owned(),
        Token::Caret => "'^'".to_owned(),
        Token::Period => "'.'".to_owned(),
        Token::Semicolon => "';'".to_owned(),
        Token::Open => "'('".to_owned(),
        Token::Close => "')'".to_owned(),
        Token::OpenSlots => "'(|'".to_owned(),
        Token::CloseSlots => "'|)'".to_owned(),
        Token::OpenBlock => "'['".to_owned(),
        Token::CloseBlock => "']'".to_owned(),
        Token::OpenBrace => "'{'".to_owned(),
        Token::CloseBrace => "'}'".to_owned(),
        Token::OpenArray => "'#('".to_owned(),
        Token::End => "the end".to_owned(),
    }
}
