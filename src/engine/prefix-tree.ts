interface Node<T> {
  /** Ids from the parent to here; empty at the root alone. */
  edge: Uint16Array;
  readonly children: Map<number, Node<T>>;
  parent: Node<T> | undefined;
  value: T | undefined;
}

/** What a tree knows of a sequence. */
export interface PrefixMatch<T> {
  /** The value stored under the longest key that is a prefix of the sequence. */
  readonly value: T | undefined;
  /** Ids that the sequence shares with some key. */
  readonly numShared: number;
}

/** A radix tree: values under sequences of ids, found by the longest key that is a prefix. No two nodes start alike. */
export class PrefixTree<T> {
  readonly #root: Node<T> = { edge: new Uint16Array(), children: new Map(), parent: undefined, value: undefined };

  get isEmpty(): boolean {
    return this.#root.children.size === 0 && this.#root.value === undefined;
  }

  match(ids: Uint16Array): PrefixMatch<T> {
    let node = this.#root;
    let value = node.value;
    let depth = 0;
    for (;;) {
      const child = depth < ids.length ? node.children.get(ids[depth]!) : undefined;
      if (child === undefined) return { value, numShared: depth };
      const shared = sharedLength(child.edge, ids.subarray(depth));
      depth += shared;
      if (shared < child.edge.length) return { value, numShared: depth };
      node = child;
      value = node.value ?? value;
    }
  }

  /** Stores the value under the key, in place of the one there. The key is copied. */
  set(key: Uint16Array, value: T): void {
    let node = this.#root;
    let depth = 0;
    while (depth < key.length) {
      const child = node.children.get(key[depth]!);
      if (child === undefined) {
        node = this.#attach(node, key.slice(depth));
        break;
      }
      const shared = sharedLength(child.edge, key.subarray(depth));
      node = shared === child.edge.length ? child : this.#split(child, shared);
      depth += shared;
    }
    node.value = value;
  }

  /** Forgets a key; nodes that serve no other key go with it. */
  delete(key: Uint16Array): void {
    let node = this.#find(key);
    if (node === undefined) return;
    node.value = undefined;
    while (node.parent !== undefined && node.value === undefined && node.children.size === 0) {
      node.parent.children.delete(node.edge[0]!);
      node = node.parent;
    }
    if (node.parent !== undefined && node.value === undefined && node.children.size === 1) this.#mergeWithChild(node);
  }

  #find(key: Uint16Array): Node<T> | undefined {
    let node = this.#root;
    for (let depth = 0; depth < key.length; depth += node.edge.length) {
      const child = node.children.get(key[depth]!);
      if (child === undefined || sharedLength(child.edge, key.subarray(depth)) < child.edge.length) return undefined;
      node = child;
    }
    return node;
  }

  #attach(parent: Node<T>, edge: Uint16Array): Node<T> {
    const node: Node<T> = { edge, children: new Map(), parent, value: undefined };
    parent.children.set(edge[0]!, node);
    return node;
  }

  /** Puts a node `length` ids along the edge to `node` and returns it. */
  #split(node: Node<T>, length: number): Node<T> {
    const upper = this.#attach(node.parent!, node.edge.slice(0, length));
    node.edge = node.edge.slice(length);
    node.parent = upper;
    upper.children.set(node.edge[0]!, node);
    return upper;
  }

  #mergeWithChild(node: Node<T>): void {
    const child = node.children.values().next().value!;
    const edge = new Uint16Array(node.edge.length + child.edge.length);
    edge.set(node.edge);
    edge.set(child.edge, node.edge.length);
    child.edge = edge;
    child.parent = node.parent;
    node.parent!.children.set(edge[0]!, child);
  }
}

/** Length of the longest common prefix. */
function sharedLength(a: Uint16Array, b: Uint16Array): number {
  const limit = Math.min(a.length, b.length);
  let length = 0;
  while (length < limit && a[length] === b[length]) length++;
  return length;
}
