import type { ChannelCredentials } from '@grpc/grpc-js';

/** A thing in an image. */
export interface Tag {
  name: string;
  nameZh: string;
  /** 0 to 1 */
  score: number;
  /** Line in the served tag lists, from 0; with `labels` the position in them. */
  id: number;
  /** Whether the served tag lists have it; only `labels` can bring others. */
  known: boolean;
}

export interface TagOptions {
  /** 0 to 1; a tag's score must exceed it. Without it, each tag has its own threshold. */
  threshold?: number;
  /** Maximum number of tags; 0 means no limit. */
  topK?: number;
  /** Tags to leave out, by English or Chinese name; not together with `labels`. */
  exclude?: readonly string[];
  /** The tags to look for, by name, instead of all that the server knows. */
  labels?: readonly string[];
}

export interface ClientOptions {
  /** Seconds that a call may take, retries included; 60 if not given. */
  timeout?: number;
  /** For TLS: `credentials.createSsl(...)` of @grpc/grpc-js; plain text if not given. */
  credentials?: ChannelCredentials;
  /** Sent with every call, such as a gateway's key: `{ authorization: 'Basic …' }`. */
  headers?: Readonly<Record<string, string>>;
}

/** One connection, for any number of calls at once. Errors are the `ServiceError`s of @grpc/grpc-js. */
export class RamClient {
  constructor(address?: string, options?: ClientOptions);
  /** The tags of an encoded image (JPEG, PNG, …), highest score first. */
  tag(image: Uint8Array, options?: TagOptions): Promise<Tag[]>;
  /** The tags of each of up to 32 images, in one request; a bad image fails all of it. */
  tagBatch(images: readonly Uint8Array[], options?: TagOptions): Promise<Tag[][]>;
  close(): void;
}
