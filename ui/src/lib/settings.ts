// The engine's settings, complete. The bindings call optional what a settings file may lack; the engine sends all of it.
import type { Methods as SentMethods, RelaySetting as SentRelay, Settings as SentSettings } from '../bindings';

export type Methods = Required<SentMethods>;
export type RelaySetting = Required<SentRelay>;
export type Settings = Required<Omit<SentSettings, 'methods' | 'relays'>> & { methods: Methods; relays: RelaySetting[] };
