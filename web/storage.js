// Conversations in the browser: one IndexedDB record each. Where there is no IndexedDB (private windows of some
// browsers, a full disk), they live as long as the page.

class Store {
  static open() {
    return new Promise((resolve) => {
      let request;
      try {
        request = indexedDB.open('kvasir', 1);
      } catch (error) {
        resolve(new Store(null));
        return;
      }
      request.onupgradeneeded = () => request.result.createObjectStore('conversations', {keyPath: 'id'});
      request.onsuccess = () => resolve(new Store(request.result));
      request.onerror = request.onblocked = () => resolve(new Store(null));
    });
  }

  constructor(db) {
    this.db = db;
    if (db) db.onversionchange = () => db.close();
  }

  run(mode, f) {
    return new Promise((resolve, reject) => {
      const transaction = this.db.transaction('conversations', mode);
      const request = f(transaction.objectStore('conversations'));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onerror = transaction.onabort = () => reject(transaction.error || request.error);
    });
  }

  /// Every record, as it was kept: not checked.
  async all() {
    return this.db ? this.run('readonly', (records) => records.getAll()) : [];
  }

  /// Undefined where there is none.
  async get(id) {
    return this.db ? this.run('readonly', (records) => records.get(id)) : undefined;
  }

  async put(record) {
    if (this.db) await this.run('readwrite', (records) => records.put(record));
  }

  async remove(id) {
    if (this.db) await this.run('readwrite', (records) => records.delete(id));
  }
}

/// Saves soon, at most once a second for each conversation; says when the browser has no room left.
class Saver {
  constructor(store) {
    this.store = store;
    this.pending = new Map();  // id: conversation
    this.timer = 0;
    this.last = Promise.resolve();
    this.channel = 'BroadcastChannel' in window ? new BroadcastChannel('kvasir') : null;
  }

  later(conversation) {
    this.pending.set(conversation.id, conversation);
    if (!this.timer) this.timer = setTimeout(() => this.now(), 1000);
  }

  now() {
    clearTimeout(this.timer);
    this.timer = 0;
    const batch = [...this.pending.values()];
    this.pending.clear();
    this.last = this.last.then(async () => {
      for (const conversation of batch) {
        try {
          await this.store.put(conversation.toRecord());
          // Other tabs need not see an answer grow.
          if (this.channel && !app.answers.has(conversation.id)) this.channel.postMessage(conversation.id);
        } catch (error) {
          showBanner(error && error.name === 'QuotaExceededError'
            ? 'The browser has no room left: this conversation is not saved. Export conversations, then delete some.'
            : 'The browser could not save this conversation. Export it to keep it.', () => this.later(conversation));
        }
      }
    });
    return this.last;
  }

  async forget(id) {
    this.pending.delete(id);
    await this.last;
    try {
      await this.store.remove(id);
      if (this.channel) this.channel.postMessage(id);
    } catch (error) {
      showBanner('The browser could not delete this conversation.');
    }
  }
}
