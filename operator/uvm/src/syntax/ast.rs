//! The syntax tree. Every node that can fail at run time knows its place in the source.

/// A place in the source: 1-based line and column (in characters).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    pub line: u32,
    pub column: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Expr {
    pub at: Position,
    pub kind: ExprKind,
}

#[derive(Debug, Clone, PartialEq)]
pub enum ExprKind {
    /// An integer literal of any size, in decimal digits with an optional leading `-`.
    Integer(String),
    Float(f64),
    Str(String),
    Symbol(String),
    /// `$a`
    Char(char),
    /// `#(1 #a 'b' (2 3))`: elements are literals.
    LiteralArray(Vec<Expr>),
    /// `{ a. b + 1 }`
    DynamicArray(Vec<Expr>),
    SelfRef,
    /// A bare name: a local if one is in scope, else a unary send to self.
    Name(String),
    /// `x := e`: a local, or the receiver's own slot `x:`.
    Assign {
        name: String,
        value: Box<Expr>,
    },
    Send {
        receiver: Receiver,
        selector: String,
        arguments: Vec<Expr>,
    },
    /// `e foo; bar: 1; baz`: `first` is a `Send`; the others go to its receiver.
    Cascade {
        first: Box<Expr>,
        others: Vec<CascadePart>,
    },
    Block(Code),
    /// `(| slots |)`: a new object.
    Object(Vec<SlotNode>),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Receiver {
    Expr(Box<Expr>),
    /// A message without a receiver: `foo: 1`.
    ImplicitSelf,
    /// `resend foo`: lookup starts in the parents of the method's holder.
    Resend,
    /// `resend parentName foo` is written `parentName resend foo`: lookup starts in that parent slot of the holder.
    DirectedResend(String),
}

#[derive(Debug, Clone, PartialEq)]
pub struct CascadePart {
    pub at: Position,
    pub selector: String,
    pub arguments: Vec<Expr>,
}

/// Body of a method or block.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Code {
    pub at: Position,
    pub arguments: Vec<String>,
    pub locals: Vec<String>,
    pub body: Vec<Statement>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Statement {
    Expr(Expr),
    /// `^ e`
    Return(Expr),
}

/// A slot in an object literal.
#[derive(Debug, Clone, PartialEq)]
pub struct SlotNode {
    pub at: Position,
    /// `balance`, `deposit:`, `+`, `parent` (without the star).
    pub name: String,
    pub kind: SlotNodeKind,
}

#[derive(Debug, Clone, PartialEq)]
pub enum SlotNodeKind {
    /// `x = e`
    Constant(Expr),
    /// `x <- e`, or bare `x` (nil)
    Assignable(Option<Expr>),
    /// `p* = e`, `p* <- e`
    Parent { assignable: bool, value: Expr },
    /// `area = ( … )`, `deposit: n = ( … )`, `+ other = ( … )`
    Method(Code),
}
