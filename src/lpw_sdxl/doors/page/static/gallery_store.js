// Finished pictures in the browser's own database, the newest ones up to a number and a size.

export const MOST_PICTURES = 200;
export const MOST_BYTES = 256 * 1024 * 1024;

const TABLE = "pictures";
const NAME = `lpw-sdxl ${new URL(".", location.href).pathname}`; // another prefix, another server

// The pictures, oldest first; in memory alone where the browser has no database for this page.
export class GalleryStore {
  constructor(database) {
    this.database = database;
    this.memory = new Map();
    this.next = 1;
  }

  static async open() {
    try {
      const asked = indexedDB.open(NAME, 1);
      asked.onupgradeneeded = () =>
        asked.result.createObjectStore(TABLE, { keyPath: "id", autoIncrement: true });
      return new GalleryStore(await outcome(asked));
    } catch {
      return new GalleryStore(null);
    }
  }

  get isKept() {
    return this.database !== null;
  }

  async all() {
    if (!this.database) return [...this.memory.values()];
    return outcome(this.database.transaction(TABLE).objectStore(TABLE).getAll());
  }

  // Adds a picture and drops the oldest ones over the bounds; returns [its id, the dropped ids].
  async add(picture) {
    const id = await this.put(picture);
    const others = (await this.all()).filter((one) => one.id !== id).reverse();
    let [count, total] = [1, sizeOf(picture)];
    const dropped = [];
    for (const one of others) {
      count += 1;
      total += sizeOf(one);
      if (count > MOST_PICTURES || total > MOST_BYTES) dropped.push(one.id);
    }
    for (const old of dropped) await this.remove(old);
    return [id, dropped];
  }

  async put(picture) {
    if (!this.database) {
      const id = picture.id ?? this.next++;
      this.memory.set(id, { ...picture, id });
      return id;
    }
    return outcome(this.table().put(picture));
  }

  async remove(id) {
    this.memory.delete(id);
    if (this.database) await outcome(this.table().delete(id));
  }

  async clear() {
    this.memory.clear();
    if (this.database) await outcome(this.table().clear());
  }

  table() {
    return this.database.transaction(TABLE, "readwrite").objectStore(TABLE);
  }
}

function sizeOf({ file, image, mask }) {
  return file.size + (image?.size ?? 0) + (mask?.size ?? 0);
}

function outcome(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
