import { describe, expect, it } from 'vitest';
import { nameProblem } from './limits';

describe('names', () => {
  it.each(['Ana', 'می\u200cخواهم', 'क्\u200dष', 'ശ്രീജിത്\u200d', 'ශ්\u200dරී', '👩\u200d👧', '❤️\u200d🔥', '👩🏽\u200d🚀'])('are taken: %s', (name) => {
    expect(nameProblem(name, 32)).toBeNull();
  });
  it.each(['', ' ', 'a\u200db', 'a\u200cb', '\u200cmi', '\u200d', 'a\u200bb', 'a\u202eb', 'x'.repeat(33)])('are refused: %j', (name) => {
    expect(nameProblem(name, 32)).not.toBeNull();
  });
});
