// The only caller of the shell.
import { commands, events, type AppError, type ClientCommand, type Reply } from '../bindings';

export { events };

type Outcome<T> = { status: 'ok'; data: T } | { status: 'error'; error: AppError };

/** Thrown when the shell or the engine says no. */
export class Refusal extends Error {
  constructor(readonly error: AppError) {
    super(error.message);
  }
}

/** The value, or a thrown `Refusal`. */
export async function settle<T>(promise: Promise<Outcome<T>>): Promise<T> {
  const outcome = await promise;
  if (outcome.status === 'error') throw new Refusal(outcome.error);
  return outcome.data;
}

/** Whatever was thrown, as an error for people. */
export function asError(thrown: unknown): AppError {
  if (thrown instanceof Refusal) return thrown.error;
  const text = thrown instanceof Error ? thrown.message : String(thrown);
  return { code: 'internal', message: text, hint: '' };
}

type Name = Reply['reply'];
type ValueOf<N extends Name> = Extract<Reply, { reply: N }> extends { value: infer V } ? V : null;

/** Asks the engine, and checks that the answer is of the kind expected. */
export async function ask<N extends Name>(command: ClientCommand, expected: N): Promise<ValueOf<N>> {
  const reply = await settle(commands.request(command));
  if (reply.reply !== expected) {
    throw new Refusal({ code: 'version_mismatch', message: `Unexpected answer: ${reply.reply}.`, hint: '' });
  }
  return ('value' in reply ? reply.value : null) as ValueOf<N>;
}

export const shell = commands;
