//! Minimum-cost flow by successive shortest paths with potentials: <https://cp-algorithms.com/graph/min_cost_flow.html>.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

struct Edge {
    to: usize,
    room: i64,
    cost: i64,
}

/// Edges lie in pairs, there and back.
pub struct Flow {
    edges: Vec<Edge>,
    at: Vec<Vec<usize>>,
}

impl Flow {
    pub fn new(nodes: usize) -> Self {
        Self { edges: Vec::new(), at: vec![Vec::new(); nodes] }
    }

    pub fn edge(&mut self, from: usize, to: usize, room: i64, cost: i64) -> usize {
        let edge = self.edges.len();
        self.edges.push(Edge { to, room, cost });
        self.edges.push(Edge { to: from, room: 0, cost: -cost });
        self.at[from].push(edge);
        self.at[to].push(edge + 1);
        edge
    }

    pub fn sent(&self, edge: usize) -> i64 {
        self.edges[edge + 1].room
    }

    /// Sends as much of `amount` as there is room for. Costs may be negative, cycles of negative cost may not be.
    pub fn send(&mut self, from: usize, to: usize, amount: i64) {
        let mut potential = vec![0i64; self.at.len()];
        let mut left = amount;
        while left > 0 {
            let mut distance = vec![i64::MAX; self.at.len()];
            let mut by = vec![usize::MAX; self.at.len()];
            distance[from] = 0;
            let mut open = BinaryHeap::from([Reverse((0, from))]);
            while let Some(Reverse((so_far, node))) = open.pop() {
                if so_far > distance[node] {
                    continue;
                }
                for edge in &self.at[node] {
                    let Edge { to, room, cost } = self.edges[*edge];
                    let there = so_far + cost + potential[node] - potential[to];
                    if room > 0 && there < distance[to] {
                        distance[to] = there;
                        by[to] = *edge;
                        open.push(Reverse((there, to)));
                    }
                }
            }
            if distance[to] == i64::MAX {
                return;
            }
            for (potential, distance) in potential.iter_mut().zip(&distance) {
                if *distance < i64::MAX {
                    *potential += distance;
                }
            }
            let path = |mut node: usize| {
                std::iter::from_fn({
                    let (edges, by) = (&self.edges, &by);
                    move || {
                        let edge = *by.get(node).filter(|edge| **edge != usize::MAX && node != from)?;
                        node = edges[edge ^ 1].to;
                        Some(edge)
                    }
                })
            };
            let steps: Vec<usize> = path(to).collect();
            let room = steps.iter().map(|edge| self.edges[*edge].room).min().unwrap_or(0).min(left);
            for edge in steps {
                self.edges[edge].room -= room;
                self.edges[edge ^ 1].room += room;
            }
            left -= room;
        }
    }
}
